"""The exercises both ways: a solution passes its tests, and a blank, a constant or a wrong answer does not."""

from __future__ import annotations

import ast
import re
import sys

import nbformat
import pytest
from exercise_notebooks import NAMES, RELEASED, SOLUTIONS, Here, errors, executed, grading, read, test_cells
from nbgrader.nbgraderformat import MetadataValidator
from notebook_rules import check_notebook

from plum_utils.exercises import Exercise, NotRight
from plum_utils.provenance import ROOT

BOTH = [SOLUTIONS / f"{name}.ipynb" for name in NAMES] + [RELEASED / f"{name}.ipynb" for name in NAMES]
AUTOGRADED, BY_HAND = 10, 2  # points of each notebook

# For each lesson an answer that looks right: exercise, what is replaced in its solution, by what, and what the message
# must show: the input, what was wanted, and what came out.
WRONG = {
    "01_testgen": [("01-ex2", "len(passed)", "max(1, len(passed) - 1)",
                    ["rows", "expected {'oss': 50", "got {'oss': 100"]),
                   ("01-ex5", "return len(condition.elts) > 0", "return False", ["test_code", "message", "got []"]),
                   ("01-ex4", " and year % 100 != 0", "", ["does not pass the three tests", "is_leap", "got 'failed"]),
                   ("01-ex4", " and year % 100 != 0", " and (year % 100 != 0 or year % 400 == 0)",
                    ["right for every year"])],
    "02_sampling": [("02-ex2", "< wanted", "<= wanted", ["r 0.5", "expected 2", "got 3"]),
                    ("02-ex3", "(logit - largest)", "logit", ["OverflowError", "1000"]),
                    ("02-ex4", "min(found)", "found[0]", ["expected 'one STOP'", "got 'one STOP two END'"])],
    "03_preferences": [("03-ex2", 'if verdict["mypy"] == "type_error":', "if False:",
                        ["'type_error'", "expected 'neither'", "got 'rejected'"]),
                       ("03-ex5", 'zip(side["chosen"], side["rejected"])',
                        '[(a, b) for a in side["chosen"] for b in side["rejected"]]',
                        ["number of pairs", "expected", "got"])],
    "04_train_kto": [("04-ex2", ".clamp(min=0)", ".abs()", ["policy_kl [-3, -2]", "expected 0", "got 0.5"]),
                     ("04-ex2", ".detach()", "", ["a gradient flows through z0"]),
                     ("04-ex3", "sigmoid(beta * (z0 - r))", "sigmoid(beta * (r - z0))", ["expected 0.75", "got 0.2"]),
                     ("04-ex5", ", reverse=True", "", ["more full batches could be made", "expected"])],
    "05_evalplus_eval": [("05-ex1", "1 - math.comb(n - c, k) / math.comb(n, k)", "1 - (1 - c / n) ** k",
                          ["n 6", "expected 1", "got 0.868"]),
                         ("05-ex4", "change[places].mean", "(np.array(after)[places] - np.array(before)).mean",
                          ["before", "expected", "got"]),
                         ("05-ex5", "max(largest, min(", "max(0, min(",
                          ["expected [0.03, 0.06, 0.06]", "got [0.03, 0.04"])],
    "06_livecodebench_eval": [("06-ex3", "Decimal(word)", "float(word)",
                               ["stopped with ValueError: could not convert", "output 'a b'", "expected False"]),
                              ("06-ex3", "len(ours) != len(theirs)", "False", ["7 done", "expected False", "got True"]),
                              ("06-ex2", '(difficulty, "Overall")', "(difficulty,)", ["expected", "'Overall'", "got"])],
}


@pytest.fixture(scope="module", params=NAMES)
def here(request):
    """One lesson's solution, in this process."""
    one = Here(request.param)
    yield request.param, one
    one.close()


@pytest.fixture(params=BOTH, ids=lambda path: f"{path.parent.name}-{path.stem}")
def notebook(request) -> nbformat.NotebookNode:
    return read(request.param)


# --- what the notebooks look like ------------------------------------------------------------------------------------

def test_there_are_exactly_the_six():
    for folder in (SOLUTIONS, RELEASED):
        assert sorted(path.stem for path in folder.glob("*.ipynb")) == NAMES


def test_metadata_is_as_nbgrader_wants_it(notebook):
    validator = MetadataValidator()
    validator.validate_nb(notebook)
    for cell in notebook.cells:
        validator.validate_cell(cell)
        assert grading(cell)["schema_version"] == 3 and grading(cell)["grade_id"] == cell.id
        assert re.fullmatch(r"0[1-6]-(title|setup|question(-answer)?|ex[1-5](-answer|-test)?)", cell.id)
        assert grading(cell)["locked"] is not grading(cell)["solution"]  # a cell is either the student's or locked


def test_points_and_parts(notebook):
    tests = test_cells(notebook)
    assert 3 <= len(tests) <= 5 and sum(grading(cell)["points"] for cell in tests) == AUTOGRADED
    by_hand = [cell for cell in notebook.cells if cell.cell_type == "markdown" and grading(cell)["grade"]]
    assert [grading(cell)["points"] for cell in by_hand] == [BY_HAND]
    assert f"{AUTOGRADED + BY_HAND} points together" in notebook.cells[0].source
    parts = [cell.id[3:] for cell in notebook.cells]
    wanted = [f"ex{number}{part}" for number in range(1, len(tests) + 1) for part in ("", "-answer", "-test")]
    assert parts == ["title", "setup", *wanted, "question", "question-answer"]
    for cell in notebook.cells:
        if re.fullmatch(r"ex\d", cell.id[3:]):
            test = next(other for other in tests if other.id == f"{cell.id}-test")
            points = grading(test)["points"]
            assert cell.source.startswith(f"## Exercise {cell.id[-1]}: ") and f"({points} point" in cell.source


def test_it_keeps_to_what_every_notebook_does_without_images(notebook):
    check_notebook(notebook)
    for cell in notebook.cells:
        assert max(map(len, cell.source.splitlines())) <= 120, cell.id
        assert "![" not in cell.source and "<img" not in cell.source, cell.id


def test_each_answer_cell_documents_one_function(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and grading(cell)["solution"]:
            function, = ast.parse(cell.source).body
            assert ast.get_docstring(function), cell.id


@pytest.mark.parametrize("name", NAMES)
def test_the_sections_named_are_in_the_lesson(name):
    headings = [re.sub(r"^#+\s*[\d.]*\s*", "", line) for cell in read(ROOT / "notebooks" / f"{name}.ipynb").cells
                if cell.cell_type == "markdown" for line in cell.source.splitlines() if re.match(r"#{2,3}\s", line)]
    text = "\n".join(cell.source for cell in read(SOLUTIONS / f"{name}.ipynb").cells)
    named = re.findall(rf'^\*Lesson {name[:2]}, "(.+?)"\.', text, re.MULTILINE)
    assert len(named) == text.count("\n## ") and [one for one in named if one not in headings] == []


def test_students_notebooks_are_what_release_makes_of_the_solutions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "teaching"))
    import release

    for name in NAMES:
        made = nbformat.writes(release.released(SOLUTIONS / f"{name}.ipynb"))
        kept = (RELEASED / f"{name}.ipynb").read_text()
        assert made.rstrip("\n") == kept.rstrip("\n"), f"{name}: run `python teaching/release.py`; never edit by hand"
    sys.modules.pop("release")


def test_no_solution_reaches_a_student():
    for name in NAMES:
        text = (RELEASED / f"{name}.ipynb").read_text()
        assert "SOLUTION" not in text and "Prediction" not in text
        for cell in read(RELEASED / f"{name}.ipynb").cells:
            if grading(cell)["solution"]:
                stub = "YOUR ANSWER HERE" if cell.cell_type == "markdown" else "raise NotImplementedError()"
                assert stub in cell.source, cell.id
            else:
                assert cell.metadata["editable"] is False, cell.id
            assert cell.metadata["deletable"] is False, cell.id


# --- run ------------------------------------------------------------------------------------------------------------

@pytest.mark.long("seconds")
@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes(name):
    for cell in executed(SOLUTIONS / f"{name}.ipynb").cells:
        if cell.cell_type == "code":
            assert not errors(cell), (cell.id, errors(cell)[0].evalue)
            bad = [output for output in cell.outputs if output.get("name") == "stderr"]  # nbgrader: no point
            assert not bad, (cell.id, bad)
        if cell.cell_type == "code" and grading(cell)["grade"]:
            assert f"Exercise {cell.id[5]}: " in cell.outputs[-1].text and "is right" in cell.outputs[-1].text


@pytest.mark.long("seconds")
@pytest.mark.parametrize("name", NAMES)
def test_the_blank_fails_with_one_helpful_message(name):
    notebook = executed(RELEASED / f"{name}.ipynb")
    for cell in test_cells(notebook):
        error, = errors(cell)
        assert error.ename == "NotRight" and error.traceback == [error.evalue]  # no frames, one line
        answer = next(other for other in notebook.cells if other.id == cell.id.replace("-test", "-answer"))
        function = ast.parse(answer.source).body[0].name
        assert error.evalue.startswith(f"Exercise {cell.id[5]} is not written yet") and f"`{function}`" in error.evalue
    others = [cell for cell in notebook.cells if cell.cell_type == "code" and not grading(cell)["grade"]]
    assert not [cell.id for cell in others if errors(cell)]


def test_a_constant_does_not_pass(here, monkeypatch):
    """Not even the one that the first check wants."""
    name, one = here
    seen = []
    value = Exercise.value

    def remember(self, arguments, hint="", wanted=None):
        seen.append(value(self, arguments, hint, wanted))
        return seen[-1]

    keys = [cell_id.removesuffix("-test") for cell_id in one.source if cell_id.endswith("-test")]
    for key in keys:
        answer = one.answer(key)
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Exercise, "value", remember)
            one.run(f"{key}-test")
        constants = [None, 0, 1, "", [], {}, True] + ([] if key == "01-ex4" else seen[:1])  # its answer is a text
        for constant in constants:
            one.names[answer.__name__] = lambda *_, constant=constant: constant
            with pytest.raises(NotRight, match=f"Exercise {key[-1]}, "):
                one.run(f"{key}-test")
        one.names[answer.__name__] = answer


def test_wrong_answers_are_told_what_is_wrong(here):
    name, one = here
    for key, old, new, shown in WRONG[name]:
        one.run(f"{key}-answer", old, new)
        with pytest.raises(NotRight) as caught:
            one.run(f"{key}-test")
        said = " ".join(str(caught.value).split())  # the columns do not matter
        assert said.startswith(f"Exercise {key[-1]}, ") and [part for part in shown if part not in said] == [], said
        one.run(f"{key}-answer")
