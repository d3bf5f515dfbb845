"""``python -m docs.site.build [RUN] [--to FOLDER]``: a run as a small static site, to be read without running anything.

Pages are the run's executed notebooks, the notes under docs/, README.md, and the tables and figures of the run's
folders. Sphinx with MyST-NB builds them and executes nothing; each of its warnings is an error. A link to a file that
is no page leads to a page that shows the file, or to a copy of it. No page asks anything of another host.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote

import jinja2
import nbformat
import yaml

from docs.site.lesson_pages import escaped, image, page, title_and_question
from plum_utils.provenance import ROOT
from plum_utils.runs import Run
from plum_utils.stages import EVALUATION, STAGES
from plum_utils.study.page import DPI, ROWS_SHOWN, as_text, captions_of, numeric_columns, read_table, title_of
from plum_utils.study.report import NoResults, markdown_table, results_block
from plum_utils.study.sweep_page import CAPTIONS

CONFIGURATION = ROOT / "docs" / "site"
SHOWN_FILES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".txt": "text", ".json": "json",
               "": "text", ".j2": "text", ".cfg": "ini", ".sh": "sh"}  # suffix -> language of the page that shows it
IMAGES = {".png", ".svg", ".jpg", ".jpeg", ".gif"}
LARGEST_SHOWN = 200_000  # bytes; larger files are copies to download
MARK = ".plum-site"  # in a folder that this module wrote, so that it may replace it
LINK = re.compile(r"^ {0,3}(?P<fence>```+|~~~+).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"  # code has no links
                  r"|(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)*?(?<!`)(?P=ticks)(?!`)"
                  r"|(?P<start>\]\()(?P<target>[^()\s]+)(?P<end>\)|\s+\"[^\"]*\"\))", re.DOTALL | re.MULTILINE)


class SiteError(RuntimeError):
    """The site cannot be built: a link without a target, a warning of Sphinx; the message names the page."""


def build(run: Path, target: Path) -> int:
    """Build the site of a run into ``target``, which is replaced; returns the number of its pages.

    Raises:
        SiteError: no run, a foreign folder in the way, a broken link, or a warning.
    """
    if not (run / "manifest.json").exists():
        raise SiteError(f"{run}: no run's folder (its manifest.json is missing)")
    if target.exists() and any(target.iterdir()) and not (target / MARK).exists():
        raise SiteError(f"{target}: not empty, and not a site of this command; give another --to, or remove it")
    with tempfile.TemporaryDirectory(prefix="plum-site-") as folder:
        source, built = Path(folder) / "source", Path(folder) / "html"
        pages = Source(run.resolve(), source).write()
        _sphinx(source, built, Path(folder) / "doctrees")
        shutil.rmtree(built / "_sources", ignore_errors=True)
        (built / MARK).touch()
        (built / ".nojekyll").touch()  # a host that runs Jekyll would drop the folders whose names start with _
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(built, target)
    return pages


def _sphinx(source: Path, built: Path, doctrees: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", str(CONFIGURATION),
               "-d", str(doctrees), str(source), str(built)]
    environment = os.environ | {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "0", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SiteError((done.stderr or done.stdout).strip().replace(f"{source}{os.sep}", ""))


class Source:
    """Sphinx's source folder for one run: which files are pages, and what each link becomes.

    Args:
        run: an executed run's folder, absolute.
        folder: where the sources are written.
    """

    def __init__(self, run: Path, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.pages: dict[Path, str] = {}  # a file, or a folder -> its page's name in the site
        self.writers: dict[str, Callable[[], str]] = {}  # page -> what makes its Markdown
        self.lessons = [path for stage in STAGES if (path := run / "notebooks" / f"{stage.name}.ipynb").exists()]
        for path in self.lessons:
            self.pages |= {path: f"lessons/{path.stem}", ROOT / "notebooks" / path.name: f"lessons/{path.stem}"}
        for path in sorted((ROOT / "docs").glob("*.md"), key=lambda path: (path.stem != "course", path.stem)):
            self._add(f"notes/{path.stem}", lambda path=path: self._markdown(path), path)
        self._add("repository", lambda: self._markdown(ROOT / "README.md"), ROOT / "README.md")
        for path in [run, *sorted(path for path in run.rglob("*") if path.is_dir())]:
            if path.name not in ("tables", "figures", "notebooks") and _has_results(path):
                self._add_folder(path)

    def _add(self, name: str, writer: Callable[[], str], *paths: Path) -> None:
        self.pages |= {path: name for path in paths}
        self.writers[name] = writer

    def _add_folder(self, folder: Path) -> None:
        """A page for a folder with results, to which links to its README, its tables and the folder itself lead."""
        inside = folder.relative_to(self.run).as_posix()
        tables = [path for kind in ("tables/*.md", "report.md", "report.html") for path in folder.glob(kind)]
        within = [folder / name for name in ("README.md", "tables", "figures", "notebooks")]
        name = f"run/{'index' if inside == '.' else inside}"
        self._add(name, lambda: self._results(folder), folder, *within, *tables)

    def write(self) -> int:
        """Write all pages; returns their number."""
        for path in self.lessons:
            self._lesson(path)
        self._save("index.md", self._index())
        written = set()
        while waiting := set(self.writers) - written:  # pages that show a file are found while others are written
            for name in sorted(waiting):
                self._save(f"{name}.md", self.writers[name]())
            written |= waiting
        return len(self.lessons) + 1 + len(written)

    def _save(self, file: str, text: str) -> None:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _lesson(self, path: Path) -> None:
        name = f"lessons/{path.stem}"
        shown = page(nbformat.read(path, as_version=4))
        for cell in shown["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = self.linked(cell["source"], [ROOT / "notebooks", path.parent], name)
        self._save(f"{name}.ipynb", json.dumps(shown))

    def _markdown(self, path: Path) -> str:
        return self.linked(path.read_text(), [path.parent], self.pages[path])

    def linked(self, text: str, bases: list[Path], name: str) -> str:
        """Markdown with its links leading to pages and copies within the site; code stays as it is.

        Args:
            bases: folders that a link may start from; the first where its target exists counts.
            name: the page that the text stands on.
        """
        def replace(match: re.Match[str]) -> str:
            target = match["target"]
            if target is None or "://" in target or target.startswith(("#", "mailto:")):
                return match[0]
            return f"{match['start']}{self.address(target, bases, name)}{match['end']}"
        return LINK.sub(replace, text)

    def address(self, target: str, bases: list[Path], name: str) -> str:
        """Where a link of the page ``name`` leads within the site.

        Raises:
            SiteError: to no file of the repository.
        """
        file, _, anchor = target.partition("#")
        paths = [Path(os.path.normpath(base / unquote(file))) for base in bases]
        path = next((path for path in paths if path.exists() or path in self.pages), None)
        if path is None:
            raise SiteError(f"{name}: the link to {target} leads nowhere")
        if path not in self.pages and path.is_dir():
            path = next((one for one in (path / "README.md", ROOT / "README.md") if one in self.pages))
        if path not in self.pages and not self._shown(path):
            return ("" if path.suffix in IMAGES else "path:") + self._relative(self._copied(path), name)
        if path.parent.name == "tables" and path.suffix == ".md":
            anchor = title_of(path.stem).lower().replace(" ", "-")
        suffix = ".ipynb" if self.pages[path].startswith("lessons/") else ".md"
        return self._relative(f"{self.pages[path]}{suffix}", name) + (f"#{anchor}" if anchor else "")

    def _relative(self, file: str, name: str) -> str:
        return Path(os.path.relpath(file, Path(name).parent)).as_posix()

    def _shown(self, path: Path) -> bool:
        """Whether a page shows this file's text; it becomes one if it can."""
        if path.suffix not in SHOWN_FILES or path.stat().st_size > LARGEST_SHOWN:
            return False
        inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        content = path.read_text()
        ticks = "`" * max([3, *(len(found) + 1 for found in re.findall("`+", content))])
        code = f"{ticks}{SHOWN_FILES[path.suffix]}\n{content}\n{ticks}"
        text = f"---\norphan: true\n---\n# {escaped(inside)}\n\n{code}\n"
        self._add(f"files/{inside.replace('.', '_')}", lambda: text, path)
        return True

    def _copied(self, path: Path) -> str:
        """Copy a file into the sources; returns its place there."""
        inside = path.relative_to(self.run if path.is_relative_to(self.run) else ROOT)
        place = self.folder / "copies" / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        return place.relative_to(self.folder).as_posix()

    def _results(self, folder: Path) -> str:
        """A folder's page: its README or a title, then its figures and tables."""
        name, parts = self.pages[folder], []
        if (folder / "README.md").exists():
            parts.append(self._markdown(folder / "README.md"))
        else:
            parts.append(self._introduction(folder, name))
        if folder == self.run:
            below = sorted({page for page in self.writers if page.startswith("run/")} - {name})
            parts += ["## Further results", _toctree([self._relative(page, name) for page in below])] if below else []
        captions = {saved: text for path in sorted((folder / "notebooks").glob("*.ipynb"))
                    for saved, text in captions_of(path).items()}
        drawn = sorted((folder / "figures").glob("*.png"))
        figures = [self._figure(path, name, captions) for path in drawn]
        first = {path.stem for path in drawn}  # a table that has a figure is what the page is about
        tables = [self._table(path, name, captions)
                  for path in sorted((folder / "tables").glob("*.csv"), key=lambda path: (path.stem not in first, path.stem))]
        parts += ["## Figures", *figures] if figures else []
        parts += ["## Tables", *tables] if tables else []
        loose = [f"- [{escaped(path.name)}](path:{self._relative(self._copied(path), name)})"
                 for path in sorted([*folder.glob("*.csv"), *folder.glob("notebooks/*.ipynb")])]
        return "\n\n".join(parts + (["## Files", "\n".join(loose)] if loose else [])) + "\n"

    def _introduction(self, folder: Path, name: str) -> str:
        """Title and notes of the sweep whose folder this is, from its parameter file; else a title."""
        path = ROOT / "params" / "mini" / f"{folder.name}.yaml"
        if folder.parent.name != "sweeps" or not path.exists():
            return f"# {title_of(folder.name) if folder != self.run else f'The run {folder.name}'}"
        sweep = yaml.safe_load(path.read_text())
        lines = [f"# {escaped(sweep.get('title', title_of(folder.name)))}", *sweep.get("notes", [])]
        source = self.address(f"params/mini/{folder.name}.yaml", [ROOT], name)
        return "\n\n".join([*lines, f"Parameters: [params/mini/{folder.name}.yaml]({source})."])

    def _figure(self, path: Path, name: str, captions: dict[str, str]) -> str:
        heading = _figure_title(path)
        caption = captions.get(f"figures/{path.stem}") or CAPTIONS.get(path.stem, f"{heading}.")
        shown = image(caption, self._relative(self._copied(path), name), path.read_bytes(), DPI)
        return f"### {escaped(heading)}\n\n{shown}\n\n{escaped(caption)}"

    def _table(self, path: Path, name: str, captions: dict[str, str]) -> str:
        frame, file = read_table(path), self._relative(self._copied(path), name)
        cut = f" The first {ROWS_SHOWN} of {len(frame):,} rows." if len(frame) > ROWS_SHOWN else ""
        text = f"{escaped(captions.get(f'tables/{path.stem}', ''))}{cut} [{escaped(path.name)}](path:{file})".strip()
        table = markdown_table(as_text(frame).head(ROWS_SHOWN), numeric_columns(frame), escaped)
        return f"### {escaped(title_of(path.stem))}\n\n{text}\n\n{table}"

    def _index(self) -> str:
        lessons = []
        for path in self.lessons:
            title, question = title_and_question(nbformat.read(path, as_version=4))
            lessons.append({"title": title, "question": question, "page": f"lessons/{path.stem}.ipynb"})
        figure = self.run / "figures" / "table2.png"
        caption = captions_of(self.run / "notebooks" / f"{EVALUATION}.ipynb").get("figures/table2", "Figure: Table 2.")
        values: dict[str, Any] = {
            "lessons": lessons, "results": _results_of(self.run), "caption": escaped(caption),
            "figure": image(caption, self._copied(figure), figure.read_bytes(), DPI)
            if figure.exists() else "",
            "notes": [name for name in self.writers if name.startswith("notes/")],
            "run": self.pages.get(self.run), "name": Run(self.run).manifest().get("params", {}).get("name", "")}
        template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return template.from_string((CONFIGURATION / "templates" / "index.md.j2").read_text()).render(values)


def _has_results(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tables", "figures", "README.md"))


def _figure_title(path: Path) -> str:
    """A figure's heading; where a table has the same name, headings and so anchors differ."""
    table = path.parent.parent / "tables" / f"{path.stem}.csv"
    return f"Figure: {title_of(path.stem)}" if table.exists() else title_of(path.stem)


def _results_of(run: Path) -> str:
    try:
        return results_block(Run(run))
    except NoResults:
        return "Lesson 05 of this run is not done, so there are no results yet."


def _toctree(pages: list[str]) -> str:
    return "\n".join(["```{toctree}", ":titlesonly:", "", *pages, "```"])


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is 0, or 1 with the pages and what is wrong with them on stderr."""
    parser = argparse.ArgumentParser(prog="python -m docs.site.build", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=ROOT / "outputs" / "reference",
                        help="an executed run's folder; default: outputs/reference")
    parser.add_argument("--to", type=Path, default=ROOT / "outputs" / "site", metavar="FOLDER",
                        help="the site's folder, replaced if it holds a site; default: outputs/site")
    arguments = parser.parse_args(argv)
    try:
        pages = build(arguments.run, arguments.to)
    except SiteError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(f"{pages} pages: {arguments.to / 'index.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
