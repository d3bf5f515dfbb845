"""``python -m plum_utils run|check|lab|list|status|report|search|export|plan``: the study from the command line."""

from __future__ import annotations

import sys

from plum_utils.study.commands import main

if __name__ == "__main__":
    sys.exit(main())
