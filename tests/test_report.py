"""The page of a run, and the results block of the README: written from tables, never typed."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from plum_utils.__main__ import main
from plum_utils.evaluation import pass_at_k_table, results_table
from plum_utils.params import Params
from plum_utils.report import END, START, NoResults, results_block, write_report, write_results
from plum_utils.runs import Run

STAGES = ("01_testgen", "05_evalplus_eval")


def scored(seeds=(0, 1)) -> pd.DataFrame:
    """Twelve problems; the baseline solves three of them, every trained policy nine, in 0.8 with half the samples."""
    rows = []
    for policy, seed, solved in [("baseline", None, 3), *((f"kto-seed{seed}", seed, 9) for seed in seeds)]:
        for decoding, temperature, n in (("greedy", 0.0, 1), ("T=0.8", 0.8, 4)):
            for task in range(12):
                rows += [{"suite": "heldout_basics", "policy": policy, "seed": seed, "decoding": decoding,
                          "temperature": temperature, "task_id": f"t/{task}", "sample_index": index,
                          "passed": task < solved and (n == 1 or index % 2 == 0)} for index in range(n)]
    return pd.DataFrame(rows)


def make_run(folder, name="mini", status="done", seeds=(0, 1)) -> Run:
    run = Run(folder)
    run.record_params(Params(name=name).model_dump(mode="json"))
    for number, stage in enumerate(STAGES):
        run.update_stage(stage, {"status": status if stage.startswith("05") else "done", "cause": "cell 7 raised",
                                 "seconds": 90.0 * (number + 1), "peak_memory_mb": 512 * (number + 1),
                                 "finished": f"2026-01-0{number + 1}T00:00:00", "device": f"CPU, {number + 1} cores",
                                 "outputs": {"tables/results.csv": "x", "tables/results.md": "x",
                                             "figures/table2.png": "x", "figures/table2.svg": "x"} if number else {}})
    run.save_table(results_table(scored(seeds), 200), "results")
    run.save_table(pass_at_k_table(scored(seeds), [1, 2, 4], 200), "pass_at_k")
    run.save_figure(Figure(), "table2")
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path / "run")


def test_the_page_shows_each_output_once_in_the_order_of_the_stages(run):
    text = write_report(run).read_text()
    assert text.index("## 01 testgen") < text.index("## 05 evalplus eval") < text.index("## Wall time")
    assert text.count("![table2](figures/table2.png)") == 1 and "table2.svg" not in text
    assert text.count("Table: results ([CSV](tables/results.csv))") == 1 and "heldout_basics" in text
    assert "| 01_testgen | done | 90.0 | 512 |" in text and "| all | | 270.0 | |" in text


def test_every_link_of_the_page_leads_to_a_file(run):
    for stage in STAGES:
        (run.path / "notebooks").mkdir(exist_ok=True)
        (run.path / "notebooks" / f"{stage}.ipynb").write_text("{}")
    text = write_report(run).read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) == 4 and all((run.path / link).is_file() for link in links)


def test_the_page_says_which_stage_failed_and_why(tmp_path):
    assert "This stage is not done: cell 7 raised" in write_report(make_run(tmp_path, status="failed")).read_text()


def test_a_page_without_any_stage(tmp_path):
    assert "| all | | 0.0 | |" in write_report(Run(tmp_path)).read_text()


def test_the_block_holds_what_the_tables_say(run):
    block = results_block(run)
    greedy, sampled = (line for line in block.splitlines() if line.startswith("| heldout_basics") and "PLUM" not in line
                       and ("greedy" in line or "T=0.8" in line))
    row = run.load_table("results").query("decoding == 'greedy' and seed == 'mean'").iloc[0]
    assert greedy.startswith(f"| heldout_basics | greedy | 12 | 25.0 [{row.before_low:.1f}, {row.before_high:.1f}] | 75.0 [")
    assert "| **+50.0 [" in greedy and greedy.endswith("| +200% | 6, 0 |")
    assert "| 12.5 [" in sampled and "| 37.5 [" in sampled
    assert "2 training seeds, averaged problem by problem" in block
    assert "by notebook: 01 1.5, 05 3.0; together 4. Peak memory 1.0 GiB. Device: CPU, 2 cores." in block
    assert "not evidence" not in block


def test_the_block_shows_pass_at_the_largest_k(run):
    line, = (line for line in results_block(run).splitlines() if line.startswith("| heldout_basics | 0.8 |"))
    assert line.startswith("| heldout_basics | 0.8 | 4 | 25.0 [") and "| 75.0 [" in line


def test_an_unclear_difference_is_not_bold_and_no_baseline_has_no_gain(tmp_path):
    run = make_run(tmp_path, seeds=(0,))
    results = run.load_table("results").assign(difference_low=-1.0, relative_percent=float("nan"))
    run.save_table(results, "results")
    lines = [line for line in results_block(run).splitlines() if line.startswith("| heldout_basics | greedy")]
    assert "**" not in lines[0] and "|  | 6, 0 |" in lines[0]
    assert "1 training seed. Bold" in results_block(run)


def test_a_smoke_run_is_stamped(tmp_path):
    assert results_block(make_run(tmp_path, name="smoke")).startswith("**A smoke run: not evidence.**")


def test_only_the_text_between_the_markers_changes(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{START}\nstale\n{END}\n\nEnd.\n")
    write_results(run, readme)
    once = readme.read_text()
    assert once.startswith(f"# Title\n\n{START}\n") and once.endswith(f"{END}\n\nEnd.\n") and "stale" not in once
    write_results(run, readme)
    assert readme.read_text() == once


@pytest.mark.parametrize("text", ["nothing", START, f"{END}{START}", f"{START}{END}{START}{END}"])
def test_a_file_without_one_pair_of_markers_is_left_alone(run, tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(NoResults, match="expected one"):
        write_results(run, readme)
    assert readme.read_text() == text


def test_the_command_writes_the_block_or_says_why_not(run, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"{START}\n{END}\n")
    assert main(["report", str(run.path), "--readme", str(readme)]) == 0
    assert "heldout_basics" in readme.read_text()
    unfinished = make_run(tmp_path / "other", status="failed")
    assert main(["report", str(unfinished.path), "--readme", str(readme)]) == 2
    assert "notebook 05 is not done" in capsys.readouterr().err
