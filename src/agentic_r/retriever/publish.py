"""Publication of an index in a store, blue-green: fill a version, try it, move the alias.

    NAME                  the alias that is searched
    NAME__previous        the version before it, for roll-back
    NAME__ENC_CORPUS      a version: digits of the encoder's and the corpus's fingerprints

Searches go on with the old version until the new one has been tried; then one request moves NAME.
NAME__previous moves in the same request where the engine can do that, else right before it (after
it, when rolling back). Versions older than the previous one are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever.codes import open_mapped, read_rows
from agentic_r.retriever.encoder import Encoder, Vectors
from agentic_r.retriever.index import INDEX_FILE, verify
from agentic_r.retriever.known import known_items
from agentic_r.retriever.stores import Store
from agentic_r.types import Passage

ENOUGH = 0.95
"""Share of the exact first ten that a version must find to be published."""

QUERIES = 200

_BATCH = 512
_DIGITS = 12


class Published(NamedTuple):
    """What the alias names now; `agreement` is None where it named that version already."""

    version: str
    previous: str
    passages: int
    agreement: float | None


def version_of(name: str, passages: str, corpus: str) -> str:
    """Name the version of an encoder's passages (their fingerprint) and a corpus (its digest)."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
        raise ConfigError(
            f"retriever.store.name: got {name!r}, expected up to 64 letters, digits and _"
        )
    return f"{name}__{passages[:_DIGITS]}_{corpus[:_DIGITS]}"


def _before(name: str) -> str:
    return f"{name}__previous"


def _is_version(name: str, version: str) -> bool:
    digits = f"[0-9a-f]{{{_DIGITS}}}"
    return re.fullmatch(f"{name}__{digits}_{digits}", version) is not None


def publish(
    store: Store,
    name: str,
    folder: Path,
    encoder: Encoder,
    corpus: Corpus,
    tick: Callable[[int], None] = lambda _: None,
) -> Published:
    """Publish the index in `folder` under an alias; `tick` hears of vectors that are added.

    The folder's files are verified first. Raises ConfigError where the index keeps no exact
    vectors, MismatchError where it is of another encoder or corpus, and DataError where the
    version does not hold or find what it should: then it is dropped and the alias stays.
    """
    manifest = verify(folder)
    passages = manifest.passages.fingerprint
    if (passages, manifest.corpus) != (encoder.passage_side, corpus.digest):
        raise MismatchError(
            f"{folder}: the index is of encoder {passages} and corpus {manifest.corpus[:16]}, "
            f"expected {encoder.passage_side} and {corpus.digest[:16]}"
        )
    if INDEX_FILE not in manifest.files:
        raise ConfigError(
            f"{folder}: got kind {manifest.kind}, which keeps no exact vectors, expected kind "
            "exact, or retriever.index.rescore = exact"
        )
    version = version_of(name, passages, corpus.digest)
    there = store.aliases()
    previous = there.get(_before(name), "")
    if there.get(name) == version:
        return Published(version, previous, store.count(version), None)
    if version != previous:
        _fill(store, version, open_mapped(folder / INDEX_FILE), corpus, tick)
    try:
        agreement = _tried(store, version, open_mapped(folder / INDEX_FILE), encoder, corpus)
    except DataError:
        if version != previous:
            store.drop(version)
        raise
    moved = {_before(name): there[name]} if name in there else {}
    moved[name] = version
    store.point(moved)
    kept = set(moved.values()) | ({previous} if name not in there else set())
    for old in store.versions():
        if _is_version(name, old) and old not in kept:
            store.drop(old)
    return Published(version, there.get(name, ""), len(corpus), agreement)


def roll_back(store: Store, name: str) -> Published:
    """Swap the alias with the version before it. Raises ConfigError for none."""
    there = store.aliases()
    now, before = there.get(name), there.get(_before(name))
    if now is None or before is None:
        raise ConfigError(
            f"retriever.store.name: {name!r} has no earlier version to go back to; publish one "
            "with: agentic-r index CONFIG --publish"
        )
    store.point({name: before, _before(name): now})
    return Published(before, now, store.count(before), None)


def published_version(store: Store, name: str, encoder: Encoder, corpus: Corpus) -> str:
    """Return the version that an alias names, which must be of this encoder and corpus.

    Raises ConfigError where nothing is published, MismatchError where it is of others.
    """
    found = store.aliases().get(name)
    if found is None:
        raise ConfigError(
            f"retriever.store.name: nothing is published as {name!r}; publish it with: "
            "agentic-r index CONFIG --publish"
        )
    wanted = version_of(name, encoder.passage_side, corpus.digest)
    if found != wanted:
        raise MismatchError(
            f"{name!r} in the store is {found}, expected {wanted}, which this run's encoder and "
            "corpus make; publish it with: agentic-r index CONFIG --publish"
        )
    return found


def _fill(
    store: Store, version: str, exact: Any, corpus: Corpus, tick: Callable[[int], None]
) -> None:
    """Add all vectors; what an interrupted publication left of the version is dropped first."""
    if version in store.versions():
        store.drop(version)
    store.create(version, int(exact.d))
    total = int(exact.ntotal)
    for start in range(0, total, _BATCH):
        stop = min(start + _BATCH, total)
        part: Sequence[Passage] = list(corpus.passages(start, stop))
        store.add(version, start, read_rows(exact, start, stop), [p.id for p in part])
        tick(stop - start)
    store.finish(version)


def _tried(store: Store, version: str, exact: Any, encoder: Encoder, corpus: Corpus) -> float:
    """Return the agreement with exact search. Raises DataError where a version is not good."""
    count = store.count(version)
    if count != len(corpus):
        raise DataError(
            f"{version}: got {count:,} vectors in the store, expected {len(corpus):,}; it was not "
            "published"
        )
    vectors: Vectors = encoder.encode(known_items(corpus, QUERIES), "query")
    k = min(10, len(corpus))
    expected = exact.search(vectors, k)[0]
    found = store.search(version, vectors, k)[0]
    # By scores: passages with the same text are as good as one another.
    least = expected[:, -1:] - 1e-4 * np.maximum(1, np.abs(expected[:, -1:]))
    agreement = float((found >= least).mean())
    if agreement < ENOUGH:
        raise DataError(
            f"{version}: the store finds {agreement:.1%} of what exact search does on "
            f"{len(vectors)} queries, expected {ENOUGH:.0%}; it was not published"
        )
    return agreement


def about_published(name: str, found: Published) -> str:
    """Say in one line what was published."""
    tried = (
        "which it was already"
        if found.agreement is None
        else f"{found.agreement:.1%} of exact search on {QUERIES} known items"
    )
    before = f"; before it: {found.previous}" if found.previous else ""
    return f"{name} is {found.version}, {found.passages:,} passages, {tried}{before}"
