"""What every committed notebook keeps to, checked without running one (STYLE of the notebooks, nbformat 4.5)."""

from __future__ import annotations

import ast
import re
import statistics

import nbformat
import pytest
from notebook_rules import check_notebook

from plum_utils.provenance import ROOT
from plum_utils.stages import STAGES

PATHS = [ROOT / "notebooks" / f"{stage.name}.ipynb" for stage in STAGES]
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)]*)\)|<img[^>]*src=[\"']?([^\"' >]*)")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_exactly_the_six_lessons():
    assert sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")) == [path.name for path in PATHS]


def test_it_keeps_to_what_every_notebook_does(notebook):
    check_notebook(notebook)


def test_one_parameters_cell_before_all_other_code(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and code_cells(notebook)[0] is tagged[0]
    set_here = [node for node in ast.parse(tagged[0].source).body if isinstance(node, ast.Assign)]
    assert {target.id for node in set_here for target in node.targets} == {"params", "run_dir"}
    assert tagged[0].source.count("\n") == 4 and "\naccept_single_values()" in tagged[0].source


def test_ids_speak(notebook):
    assert [cell.id for cell in notebook.cells if not re.fullmatch(r"0[1-6]-[a-z0-9-]+", cell.id)] == []


def test_prose_leads(notebook):
    """The lesson opens with text, and no more than three code cells stand together without a word between."""
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert "cccc" not in kinds


def test_as_much_text_as_code_and_code_in_small_pieces(notebook):
    """Half of the code cells have at most 12 lines, and no function that a lesson defines has more than 15."""
    code = code_cells(notebook)
    assert len(notebook.cells) - len(code) >= len(code)
    assert statistics.median(len(cell.source.splitlines()) for cell in code) <= 12
    functions = [node for cell in code for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)]
    assert {one.name: one.end_lineno - one.lineno + 1 for one in functions if one.end_lineno - one.lineno >= 15} == {}


def stage_of(notebook: nbformat.NotebookNode) -> str:
    """Name of the stage that a lesson's title numbers."""
    return STAGES[int(notebook.cells[0].source.split()[1]) - 1].name


def test_the_beats_of_a_lesson(notebook):
    """Goals at the start; three experiments with a value to change, before the recap; the way to the exercises."""
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    goals = next(source for source in text[:3] if "After this lesson you can" in source)
    assert 3 <= len(re.findall(r"^(?:-|\d\.) ", goals, re.MULTILINE)) <= 5
    after = "\n".join(text).split("What would change if\n")
    assert len(after) == 2 and len(re.findall(r"^### If ", after[1], re.MULTILINE)) == 3
    assert sum("# change me" in cell.source for cell in code_cells(notebook)) == 3
    assert f"exercises/{stage_of(notebook)}.ipynb" in after[1]
    assert (ROOT / "notebooks" / "exercises" / f"{stage_of(notebook)}.ipynb").is_file()


def test_it_opens_its_own_stage(notebook):
    opening = f'open_stage(params, run_dir, "{stage_of(notebook)}")'
    assert sum(opening in cell.source for cell in code_cells(notebook)) == 1


def test_sections_are_numbered(notebook):
    titles = [line for cell in notebook.cells if cell.cell_type == "markdown"
              for line in re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL).splitlines()
              if re.match(r"##\s", line)]
    assert len(titles) >= 4
    assert [title for title in titles if not re.match(r"## \d", title)] == []


def test_no_hot_linked_images(notebook):
    for cell in notebook.cells:
        links = [one or two for one, two in IMAGE.findall(cell.source)]
        assert not [link for link in links if "://" in link], cell.id


def test_results_are_asserted(notebook):
    checks = sum(len(re.findall(r"^check\(", cell.source, re.MULTILINE)) for cell in code_cells(notebook))
    assert checks >= 3


def test_there_are_exercises_and_a_recap(notebook):
    text = "\n".join(cell.source.lower() for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.count("exercise") >= 2 and "recap" in text
