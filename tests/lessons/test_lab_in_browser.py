"""JupyterLab as ``make lab`` starts it, in a real browser: run-all of lessons, progress, widgets, missing inputs."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Iterator

import nbformat
import pytest

from plum_utils.provenance import ROOT
from plum_utils.study import lab

pytestmark = pytest.mark.long("browser")
TOKEN = secrets.token_hex(8)
OWN_FOLDERS = ("JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR",
               "IPYTHONDIR")
SHOTS = os.environ.get("PLUM_SCREENSHOTS")  # a folder to keep pictures in


def own_copy(target: Path, finished: Path | None) -> Path:
    """The repository's notebooks and parameters, the notebooks set to the smoke run, which may be there or not."""
    shutil.copytree(ROOT / "params", target / "params")
    shutil.copytree(ROOT / "notebooks", target / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for path in (target / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = 'params = "params/smoke.yaml"\nrun_dir = "outputs/smoke"'
        nbformat.write(notebook, path)
    if finished is not None:
        shutil.copytree(finished, target / "outputs" / "smoke")
    return target


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[Any]:
    processes = []

    def start(folder: Path) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["--no-browser", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
                   f"--IdentityProvider.token={TOKEN}"]
        own = {name: str(tmp_path / name) for name in OWN_FOLDERS}  # nothing of the user's, such as open tabs
        settings = Path(own["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "notebook-extension"
        settings.mkdir(parents=True)
        (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')  # cells out of sight too
        processes.append(subprocess.Popen(lab.command(options, folder), cwd=folder, stdout=subprocess.DEVNULL,
                                          env=lab.environment() | own | {"HF_HUB_OFFLINE": "1"},
                                          stderr=subprocess.DEVNULL))
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5)
                return address
            except OSError:
                assert time.monotonic() < deadline and processes[-1].poll() is None, "JupyterLab did not start"
                time.sleep(0.5)

    yield start
    for process in processes:
        process.terminate()
        process.wait(timeout=30)


def opened(browser: Any, address: str, stage: str) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/lab/tree/notebooks/{stage}.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.wait_for_selector("text=| Idle", timeout=90_000)
    return page


def run_all(page: Any) -> None:
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")


def finished(page: Any, path: Path, seconds: float) -> nbformat.NotebookNode:
    """The notebook as saved once every cell has run, or as soon as one has failed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(2000)
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        failed = [cell.id for cell in code for output in cell.outputs if output.output_type == "error"]
        if failed or all(cell.execution_count for cell in code):
            return notebook
    raise AssertionError(f"not every cell of {path.name} has run after {seconds} s")


def errors(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.id, output.evalue) for cell in notebook.cells if cell.cell_type == "code"
            for output in cell.outputs if output.output_type == "error"]


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def test_run_all_of_01_from_nothing(browser, open_lab, tmp_path):
    folder = own_copy(tmp_path / "copy", None)
    page = opened(browser, open_lab(folder), "01_testgen")
    assert page.locator("text=official Jupyter news").count() == 0
    run_all(page)
    notebook = finished(page, folder / "notebooks" / "01_testgen.ipynb", 400)
    assert errors(notebook) == []
    assert (folder / "outputs/smoke/01_testgen/testgen.jsonl").is_file()
    shot(page, "lab_01")


def test_run_all_of_03_alone_with_its_browser_of_samples(browser, open_lab, smoke, tmp_path):
    folder = own_copy(tmp_path / "copy", smoke.path)
    shutil.rmtree(folder / "outputs/smoke/03_preferences")
    page = opened(browser, open_lab(folder), "03_preferences")
    run_all(page)
    notebook = finished(page, folder / "notebooks" / "03_preferences.ipynb", 400)
    assert errors(notebook) == []
    bars = [output.text for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
            if output.output_type == "stream" and output.name == "stderr"]
    assert any("judging" in text and "100%" in text for text in bars), "no progress bar of the judging"
    views = [output.data for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
             if "application/vnd.jupyter.widget-view+json" in output.get("data", {}) and "text/html" in output.data]
    assert views, "no widget with a static form"
    widget = page.locator(".jp-OutputArea-output .widget-vbox", has=page.locator("details"))
    widget.scroll_into_view_if_needed()
    first = widget.locator("b").first.inner_text()
    widget.locator("select").select_option(index=1)
    page.wait_for_function("([view, text]) => view.querySelector('b').innerText !== text",
                           arg=[widget.element_handle(), first], timeout=30_000)
    shot(page, "lab_03")


def test_a_lesson_without_inputs_says_what_to_run_first(browser, open_lab, tmp_path):
    folder = own_copy(tmp_path / "copy", None)
    page = opened(browser, open_lab(folder), "03_preferences")
    run_all(page)
    notebook = finished(page, folder / "notebooks" / "03_preferences.ipynb", 120)
    ((cell, message),) = errors(notebook)
    assert cell == "03-open" and "Run 01_testgen and 02_sampling first" in message
    assert "-m plum_utils run params/smoke.yaml --until 02" in message
    shown = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-output")
    assert "Traceback" not in " ".join(shown.all_inner_texts())
    shot(page, "lab_03_missing")
