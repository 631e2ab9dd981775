"""Files by path or by hub name, fetched at first use.

    corpus.jsonl                                              a file
    hf://datasets/OWNER/NAME/PATH, hf://OWNER/NAME/PATH       a file of a data set or model there
    hf://datasets/OWNER/NAME@REVISION/PATH                    the same, at a commit, branch or tag

What was fetched lies in the hub's own cache (`HF_HOME`); `HF_HUB_OFFLINE=1` keeps to what is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from agentic_r.errors import DataError, MissingExtraError

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"hf://(?:(?P<kind>datasets/)|(?!datasets/))(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?/(?P<path>.+)"
)


class HubFile(NamedTuple):
    """One file on the hub; `revision` is "" for the newest."""

    kind: str
    repo: str
    revision: str
    path: str


def hub_file(where: str) -> HubFile | None:
    """Read an address, None where `where` is a path. Raises DataError for half an address."""
    if not where.startswith(SCHEME):
        return None
    match = _ADDRESS.fullmatch(where)
    if match is None:
        raise DataError(
            f"{where}: got an address without a file, expected hf://datasets/OWNER/NAME/PATH"
        )
    kind = "dataset" if match["kind"] else "model"
    return HubFile(kind, match["repo"], match["revision"] or "", match["path"])


def fetched(where: str) -> Path:
    """Return the file that a path or an address names, fetched from the hub where need be.

    A path is returned as it is, there or not. Raises DataError where the hub cannot be reached
    and its cache lacks the file, and where it has no such file; MissingExtraError where
    huggingface_hub is not installed.
    """
    file = hub_file(where)
    if file is None:
        return Path(where)
    hub = _hub()
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            hub.hf_hub_download(
                file.repo, file.path, repo_type=file.kind, revision=file.revision or None
            )
        )
    except LocalEntryNotFoundError:
        raise DataError(
            f"{where}: the hub cannot be reached and its cache does not hold this file; go online, "
            "unset HF_HUB_OFFLINE, or give a file of your own"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{where}: the hub does not give this file: {said}") from None


def at_hand(where: str) -> bool:
    """Say whether a file is there without any network: on the disk, or in the hub's cache."""
    file = hub_file(where)
    if file is None:
        return Path(where).is_file()
    found = _hub().try_to_load_from_cache(
        file.repo, file.path, repo_type=file.kind, revision=file.revision or None
    )
    return isinstance(found, str)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError("huggingface_hub", "local") from None
    return huggingface_hub
