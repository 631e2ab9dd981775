"""The files of a saved model, named with block digests, so that a damaged one is refused by name.

safetensors and transformers load weights with flipped bits without a word.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agentic_r.errors import DataError
from agentic_r.io import write_atomic
from agentic_r.retriever import blocks

SEAL_FILE = "agentic_r_files.json"

_ENDINGS = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
"""What a model is read from; the card is for people, who may write in it."""


def seal(folder: Path) -> None:
    """Name every file that the model in `folder` is read from, with its digests; written last."""
    files = {
        str(path.relative_to(folder)): blocks.measure(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _ENDINGS and path.name != SEAL_FILE and path.is_file()
    }
    write_atomic(folder / SEAL_FILE, msgspec.json.encode(files))


def check_seal(folder: Path) -> int:
    """Compare every file that is named; returns how many, 0 for a model that is not sealed.

    Raises DataError naming a file that is missing or damaged.
    """
    path = folder / SEAL_FILE
    if not path.is_file():
        return 0
    remedy = f"train it again, or delete {path} if you changed the model yourself"
    try:
        files = msgspec.json.decode(path.read_bytes(), type=dict[str, blocks.Whole])
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: damaged ({error}); {remedy}") from None
    blocks.check(folder, files, remedy, what="a model")
    return len(files)


def sealed(run: Path) -> list[Path]:
    """List the folders of a run that hold a sealed model."""
    return sorted(path.parent for path in run.rglob(SEAL_FILE))
