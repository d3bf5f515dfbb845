"""Push an exported folder, a policy's or a preference set's, to a repository of the model hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from plum_utils.study.export import ExportError

Kind = Literal["model", "dataset"]
LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token that may write"
REASONS = {401: f"the hub does not know the token: {LOG_IN}",
           403: "no permission: take a repository of your own or of an organisation that lets you write, and a token "
                "that may write"}


def check_login() -> None:
    """Ask the hub whose token this is: before anything is exported, for that takes a while.

    Raises:
        ExportError: no token, one that the hub does not know, or no hub.
    """
    from huggingface_hub import HfApi

    with _explained():
        HfApi().whoami()


def push(folder: Path, repo: str, kind: Kind, public: bool = False) -> str:
    """Upload the folder's files and return the commit's address (``HfApi.upload_folder``). What an interrupted push had
    sent is not sent again; files that only the repository has stay.

    Args:
        repo: made where it is not there, private unless ``public``; one that is there stays what it is.

    Raises:
        ExportError: no such name, no permission, or no hub.
    """
    from huggingface_hub import HfApi

    with _explained(f" {repo}", f"; the export is whole in {folder}, and the same command goes on"):
        api = HfApi(token=True)
        made = api.create_repo(repo, private=not public, repo_type=kind, exist_ok=True)
        return str(api.upload_folder(repo_id=made.repo_id, folder_path=folder, repo_type=kind,
                                     commit_message="Export of plum-study").commit_url)


@contextmanager
def _explained(repo: str = "", then: str = "") -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        reason = f"not logged in: {LOG_IN}"
    except HFValidationError as error:
        reason = f"no name of a repository ({_first_line(error)})"
    except HfHubHTTPError as error:
        reason = REASONS.get(error.response.status_code) or f"the hub refused ({_first_line(error)})"
    except Exception as error:  # of the HTTP client and of the storage's, which have no class in common
        reason = f"the hub was not reached ({type(error).__name__}: {_first_line(error)})"
    else:
        return
    raise ExportError(f"--push-to-hub{repo}: {reason}{then}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no word")
