"""``report.md`` of a run: every table and figure in the order of the stages, then time and memory."""

from __future__ import annotations

from pathlib import Path

from plum_utils.jsonl import write_text
from plum_utils.runs import Run


def write_report(run: Run) -> Path:
    """Write ``report.md`` into the run's folder, with links relative to it; returns its path."""
    stages = sorted(run.manifest()["stages"].items())
    lines = [f"# Report of {run.path.name}", ""]
    for name, entry in stages:
        lines += [f"## {name.replace('_', ' ')}", "", f"[executed notebook](notebooks/{name}.ipynb)", ""]
        if entry["status"] != "done":
            lines += [f"This stage is not done: {entry.get('cause', entry['status'])}", ""]
        for output in entry["outputs"]:
            lines += _shown(run, Path(output))
    lines += ["## Wall time", "", "| stage | status | seconds | peak memory, MiB |", "|---|---|---:|---:|"]
    for name, entry in stages:
        lines.append(f"| {name} | {entry['status']} | {entry.get('seconds', '')} | {entry.get('peak_memory_mb', '')} |")
    total = sum(entry.get("seconds", 0) for _, entry in stages)
    lines.append(f"| all | | {total:.1f} | |")
    write_text(run.path / "report.md", "\n".join(lines) + "\n")
    return run.path / "report.md"


def _shown(run: Run, output: Path) -> list[str]:
    title = output.stem.replace("_", " ")
    if output.suffix == ".png":
        return [f"![{title}]({output.as_posix()})", ""]
    if output.suffix == ".md" and (run.path / output).exists():
        caption = f"Table: {title} ([CSV]({output.with_suffix('.csv').as_posix()}))"
        return [caption, "", (run.path / output).read_text(), ""]
    return []
