"""Long documents cut into passages, by words or sentences, with overlap; chonkie does the cutting.

Runs of blanks become one blank. A passage has the title of its document and the id
"DOCUMENT-NUMBER", numbers from 0, so that ids stay unique where those of the documents are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agentic_r.data.passages import read_passages
from agentic_r.errors import ConfigError, DataError, MissingExtraError
from agentic_r.io import written
from agentic_r.types import Passage

By = Literal["words", "sentences"]

ENDINGS = (".txt", ".md")
"""Files of a folder that are documents."""

_RENEWED = 2_000
"""Documents after which a cutter is made anew: it remembers every word that it has seen."""


class Counts(msgspec.Struct):
    """How many documents were read and passages written."""

    documents: int = 0
    passages: int = 0


class Cut(msgspec.Struct, frozen=True):
    """How documents are cut; `size` and `overlap` count words, also where sentences are kept whole.

    By sentences, neighbours share as many whole ones as there is room for in `overlap`.
    """

    by: By = "words"
    size: Annotated[int, msgspec.Meta(ge=1)] = 100
    overlap: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise ConfigError(
                f"chunk: got size {self.size} and overlap {self.overlap}, expected a size of at "
                "least 1 and an overlap of at least 0 below it"
            )


def chunk_file(source: Path, target: Path, cut: Cut) -> Counts:
    """Cut the documents of a corpus file, or of a folder of texts, into a FlashRAG corpus.

    All or nothing. Raises DataError where documents cannot be read or there is none, ConfigError
    for a target that is not JSON lines, and MissingExtraError without chonkie.
    """
    if target.suffix != ".jsonl":
        raise ConfigError(f"got the target {target}, expected a name that ends in .jsonl")
    counts = Counts()
    encoder = msgspec.json.Encoder()
    with written(target) as file:
        for passage in chunks(documents(source), cut, counts):
            row = {"id": passage.id, "contents": f'"{passage.title}"\n{passage.text}'}
            file.write(encoder.encode(row) + b"\n")
        if not counts.passages:
            raise DataError(f"{source}: got no document with text, expected at least one")
    return counts


def documents(source: Path) -> Iterator[Passage]:
    """Read documents: the lines of a corpus file, or the .txt and .md files below a folder.

    A file's id is its path in the folder, its title the name without the ending.
    """
    if not source.is_dir():
        yield from (passage for _, passage in read_passages(source))
        return
    for path in sorted(source.rglob("*")):
        if path.suffix in ENDINGS and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            yield Passage(str(path.relative_to(source)), text, path.stem)


def chunks(documents: Iterator[Passage], cut: Cut, counts: Counts) -> Iterator[Passage]:
    """Cut documents one after the other; `counts` is kept up to date."""
    cutter = _cutter(cut)
    for document in documents:
        counts.documents += 1
        if counts.documents % _RENEWED == 0:
            cutter = _cutter(cut)
        for number, text in enumerate(cutter(document.text)):
            counts.passages += 1
            yield Passage(f"{document.id}-{number}", text, " ".join(document.title.split()))


def _cutter(cut: Cut) -> Callable[[str], list[str]]:
    """Return what cuts one text. Raises MissingExtraError without chonkie."""
    try:
        from chonkie import SentenceChunker, TokenChunker
    except ModuleNotFoundError:
        raise MissingExtraError("chonkie", "chunk") from None
    token = TokenChunker("word", chunk_size=cut.size, chunk_overlap=cut.overlap)

    def words(text: str) -> list[str]:
        return [chunk.text for chunk in token.chunk(" ".join(text.split()))]

    if cut.by == "words":
        return words
    sentence = SentenceChunker(
        lambda text: len(text.split()), chunk_size=cut.size, chunk_overlap=cut.overlap
    )

    def sentences(text: str) -> list[str]:
        whole = [chunk.text for chunk in sentence.chunk("\n".join(_lines(text)))]
        # What has no end of a sentence, such as a table, comes out longer than was asked for.
        return [
            part
            for chunk in whole
            for part in ([chunk.strip()] if len(chunk.split()) <= cut.size else words(chunk))
            if part
        ]

    return sentences


def _lines(text: str) -> list[str]:
    """Return the lines of a text that are not blank, each blank run one blank."""
    return [line for line in (" ".join(raw.split()) for raw in text.splitlines()) if line]
