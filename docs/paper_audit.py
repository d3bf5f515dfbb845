"""Every table of docs/paper_notes.md, section 3, recomputed; ``tests/repository/test_docs.py`` checks that it is in step.

    python -m docs.paper_audit           # print them
    python -m docs.paper_audit --write   # write them into docs/paper_notes.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Callable

from docs import paper_claims, published

NOTES = Path(__file__).with_name("paper_notes.md")
Blocks = dict[str, Callable[[], str]]  # name of a pair of markers -> what stands between them
BLOCKS: Blocks = {"inconsistencies": paper_claims.inconsistencies_markdown, "claims": paper_claims.claims_markdown,
          **{function.__name__: lambda made=function: made().to_markdown(index=False, disable_numparse=True)
             for function in (published.baselines, published.mixed_suites, published.contest_baselines,
                              published.best_windows, published.contest_mixtures)}}


def filled(page: str, blocks: Blocks = BLOCKS) -> str:
    """The page with each block between its markers as the numbers have it."""
    for name, block in blocks.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        page = re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{block()}\n{end}", page, flags=re.DOTALL)
    return page


def main(arguments: list[str], page: Path = NOTES, blocks: Blocks = BLOCKS) -> None:
    if "--write" in arguments:
        page.write_text(filled(page.read_text(), blocks))
    else:
        print("\n\n".join(f"## {name}\n\n{block()}" for name, block in blocks.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
