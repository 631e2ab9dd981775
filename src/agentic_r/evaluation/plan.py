"""What a grid measures, resolved from the config before anything is opened.

`[[evaluation.agents]]`, `[[evaluation.retrievers]]` and `[[evaluation.datasets]]` are tables that
name what differs from `[agent]` and `[retriever]`; a list that is missing has the config's own
agent, retriever or test questions as its one entry. Nothing here opens a model or a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import msgspec

from agentic_r.config import AgentConfig, Config, RetrieverConfig, checked
from agentic_r.data.datasets import Source
from agentic_r.data.hub import at_hand, hub_file
from agentic_r.errors import ConfigError, DataError, MissingExtraError

Kind = Literal["dense", "bm25", "oracle"]

OWN = "test"
"""The name of the config's own test questions among the data sets."""

AVERAGE = "average"
"""What stands in place of a data set's name in a row that averages over all of them."""


class Agent(NamedTuple):
    """One agent of the grid."""

    label: str
    config: AgentConfig


class Retriever(NamedTuple):
    """One retriever of the grid."""

    label: str
    kind: Kind
    config: RetrieverConfig


class Cell(NamedTuple):
    """One agent with one retriever on one data set; `own` marks the config's test questions."""

    agent: Agent
    retriever: Retriever
    source: Source
    own: bool

    @property
    def name(self) -> str:
        """The name of its row."""
        return row_name(self.agent.label, self.retriever.label, self.source.name)

    @property
    def folder(self) -> str:
        """The folder of its stages in the run."""
        parts = (self.agent.label, self.retriever.label, self.source.name)
        return "/".join(["grid", *map(slug, parts)])


class Plan(NamedTuple):
    """The grid: every agent with every retriever on every data set."""

    agents: tuple[Agent, ...]
    retrievers: tuple[Retriever, ...]
    sources: tuple[Source, ...]
    own: bool

    def cells(self, agent: Agent, retriever: Retriever) -> list[Cell]:
        """Return the cells of one pair, one a data set."""
        return [Cell(agent, retriever, source, self.own) for source in self.sources]


def row_name(agent: str, retriever: str, dataset: str) -> str:
    """Name a row of the grid."""
    return f"{agent} + {retriever} on {dataset}"


def slug(name: str) -> str:
    """Turn a label into a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def wanted(config: Config) -> bool:
    """Say whether the config describes a grid at all."""
    grid = config.evaluation
    return bool(grid.agents or grid.retrievers or grid.datasets)


def plan(config: Config) -> Plan:
    """Resolve the grid. Raises ConfigError naming the list, the entry and the key."""
    grid = config.evaluation
    agents = [_agent(config, entry, n) for n, entry in enumerate(grid.agents, 1)]
    retrievers = [_retriever(config, entry, n) for n, entry in enumerate(grid.retrievers, 1)]
    sources = [_source(config, entry, n) for n, entry in enumerate(grid.datasets, 1)]
    if not agents:
        agents = [Agent(_last(config.agent.name or config.agent.model), config.agent)]
    if not retrievers:
        retrievers = [Retriever(_last(config.retriever.base), "dense", config.retriever)]
    own = not sources
    if own:
        sources = [Source(OWN, sample=grid.sample)]
    _apart("agents", [agent.label for agent in agents])
    _apart("retrievers", [retriever.label for retriever in retrievers])
    _apart("datasets", [source.name for source in sources])
    return Plan(tuple(agents), tuple(retrievers), tuple(sources), own)


def describe(config: Config, found: Plan) -> list[str]:
    """Say what will be measured and what is at hand, without any network, one line each."""
    lines = [f"corpus: {_corpus(config)}"]
    for agent in found.agents:
        about = f"{agent.config.model}, dialect {agent.config.dialect}, {agent.config.turns} turns"
        lines.append(f"agent {agent.label}: {about}")
    for label, kind, chosen in found.retrievers:
        form = f"{chosen.input}, k={chosen.k}"
        lines.append(f"retriever {label}: {_encoder(kind, chosen)}, {form}")
    for source in found.sources:
        size = f"{source.sample} questions drawn" if source.sample else "all questions"
        where = "the config's own test questions" if found.own else _file(source.where)
        lines.append(f"data set {source.name}: {where}, {size}")
    count = len(found.agents) * len(found.retrievers) * len(found.sources)
    return [*lines, f"{count} cells"]


def missing(config: Config, found: Plan) -> list[str]:
    """Name the local files that the grid needs and that are not there."""
    files = [] if found.own else [source.where for source in found.sources]
    files += [source.qrels for source in found.sources if source.qrels]
    files += [agent.config.prompt_file for agent in found.agents if agent.config.prompt_file]
    if config.data.source == "files":
        files.append(config.data.corpus)
    return [file for file in dict.fromkeys(files) if hub_file(file) is None and not at_hand(file)]


def _agent(config: Config, entry: Mapping[str, Any], number: int) -> Agent:
    source = f"evaluation.agents, entry {number}"
    chosen = _merged("agent", config.agent, entry, source, own=("label",))
    return Agent(_label(entry, _last(chosen.name or chosen.model), source), chosen)


def _retriever(config: Config, entry: Mapping[str, Any], number: int) -> Retriever:
    source = f"evaluation.retrievers, entry {number}"
    kind = entry.get("kind", "dense")
    if kind not in get_args(Kind):
        kinds = ", ".join(f'"{k}"' for k in get_args(Kind))
        raise ConfigError(f"{source}: kind: got {kind!r}, expected one of {kinds}")
    chosen = _merged("retriever", config.retriever, entry, source, own=("label", "kind"))
    if kind == "oracle" and chosen.input != "question+query":
        raise ConfigError(
            f'{source}: input: got "{chosen.input}", expected "question+query": the oracle reads '
            "the question in what it is sent"
        )
    standard = _last(chosen.base) if kind == "dense" else kind
    return Retriever(_label(entry, standard, source), cast(Kind, kind), chosen)


def _source(config: Config, entry: Mapping[str, Any], number: int) -> Source:
    source = f"evaluation.datasets, entry {number}"
    fields = Source.__struct_fields__
    for key in entry:
        if key not in fields:
            near = get_close_matches(key, fields, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(fields)}"
            raise ConfigError(f"{source}: there is no key {key!r}; {hint}")
    try:
        found = msgspec.convert({"sample": config.evaluation.sample, **entry}, Source)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}; see docs/evaluate.md") from None
    if not slug(found.name) or found.sample < 0:
        raise ConfigError(
            f"{source}: got name {found.name!r} and sample {found.sample}, expected a name with "
            "a letter or digit and a sample of at least 0"
        )
    try:
        _ = found.where
    except DataError as error:
        raise ConfigError(f"{source}: {error}") from None
    return found


def _merged(
    table: str, base: Any, entry: Mapping[str, Any], source: str, *, own: Sequence[str]
) -> Any:
    """Put an entry's settings over those of the config's table, each one checked.

    A setting of a table below is given as TOML gives it (`index.kind = "pq"`) or by its dotted
    name in quotes.
    """
    for key, value in _dotted(base, {k: v for k, v in entry.items() if k not in own}):
        base = _replaced(base, key.split("."), checked(f"{table}.{key}", value, source))
    return base


def _dotted(base: Any, entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in entry.items():
        below = getattr(base, key, None)
        if isinstance(value, Mapping) and isinstance(below, msgspec.Struct):
            yield from _dotted(below, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _replaced(base: Any, path: Sequence[str], value: Any) -> Any:
    """Return a struct with the field that a path of names leads to replaced."""
    name, *rest = path
    inner = _replaced(getattr(base, name), rest, value) if rest else value
    return msgspec.structs.replace(base, **{name: inner})


def _label(entry: Mapping[str, Any], standard: str, source: str) -> str:
    label = entry.get("label", standard)
    if not isinstance(label, str) or not slug(label):
        raise ConfigError(f"{source}: label: got {label!r}, expected a name for the rows")
    return label


def _apart(list_name: str, labels: Sequence[str]) -> None:
    folders = [slug(label) for label in labels]
    for at, folder in enumerate(folders):
        if folder in folders[:at] or (list_name == "datasets" and folder == AVERAGE):
            raise ConfigError(
                f"evaluation.{list_name}: {labels[at]!r} is taken; give every entry a "
                f"{'name' if list_name == 'datasets' else 'label'} of its own"
            )


def _last(name: str) -> str:
    return name if "://" in name else Path(name).name


def _corpus(config: Config) -> str:
    if config.data.source == "world":
        return "a generated world"
    return _file(config.data.corpus)


def _encoder(kind: Kind, chosen: RetrieverConfig) -> str:
    return {"dense": chosen.base, "bm25": "BM25", "oracle": f"oracle over {chosen.base}"}[kind]


def _file(where: str) -> str:
    try:
        there = at_hand(where)
    except MissingExtraError:
        there = False
    state = "at hand" if there else "fetched at first use" if hub_file(where) else "MISSING"
    return f"{where} ({state})"
