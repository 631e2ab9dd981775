"""What the service offers: retrievers with their names, the corpus, and the run behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from agentic_r.agent.query import ruler_of, sent
from agentic_r.io import fingerprint
from agentic_r.protocols import Retriever
from agentic_r.serve.shards import Shards
from agentic_r.types import Passage, Question, Trajectory, Turn


class Encoding(Protocol):
    """Turns texts into vectors: `agentic_r.retriever.encoder.Encoder` does."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> Any:
        """Encode texts into a float32 array [n, dimension]."""
        ...


class Passages(Protocol):
    """The passages behind the retrievers: `Corpus` is one, all shards together are another."""

    @property
    def digest(self) -> str:
        """What identifies them."""
        ...

    def __len__(self) -> int: ...

    def get(self, id: str) -> Passage:
        """Look a passage up by id. Raises DataError where there is none."""
        ...


class Reranker(Protocol):
    """Scores pairs of a query and a text, higher is better."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return one score a pair."""
        ...


@dataclass(frozen=True, eq=False)
class Offer:
    """One retriever that can be searched with.

    `key` identifies its model and index, `form` is the input that it was trained with, `engine`
    says what encodes its queries, `batch` is how many queries it takes at once where that is fewer
    than the service's own number, and `index` names the encoder of its passages, where it can be
    searched by vector.
    """

    name: str
    key: str
    model: str
    form: str
    retriever: Retriever
    encoder: Encoding | None = None
    engine: str = ""
    batch: int | None = None
    index: str | None = None

    def sent(self, query: str, question: str | None = None, reasoning: str | None = None) -> str:
        """Return the retriever's input for a query.

        Without a question the query is taken as it stands: clients of Search-R1 and Agentic-R
        build the input themselves.
        """
        if question is None:
            return query
        start = Trajectory("", Question("", question, ()))
        turn = Turn(reasoning or "", "search")
        ruler = ruler_of(self.retriever)
        return sent(start, turn, query, self.form, ruler, reasoning=reasoning)


@dataclass(frozen=True, eq=False)
class Served:
    """All that one version of the service answers from; the first offer answers `/retrieve`."""

    corpus: Passages
    offers: tuple[Offer, ...]
    run: Path | None = None
    reranker: Reranker | None = None
    shards: Shards | None = None
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Name the version after what it consists of."""
        keys = [offer.key for offer in self.offers]
        object.__setattr__(self, "version", fingerprint([self.corpus.digest, keys]))

    @property
    def main(self) -> Offer:
        """The offer that clients get who do not choose."""
        return self.offers[0]

    def offer(self, name: str | None) -> Offer | None:
        """Find an offer by name; None is the main one."""
        return self.main if name is None else next((o for o in self.offers if o.name == name), None)


Opener = Callable[[], Served]
"""Opens what is to be served; called at the start and at every reload, in a thread of its own."""
