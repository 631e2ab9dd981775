"""What was made elsewhere and is taken in place of steps of the first iteration.

Trajectories in place of the agent's rollouts, candidates in place of what the retriever finds,
sub-answers in place of the judge's: as upstream's steps leave them (contracts B1 to B3), so that
who has paid for them can go on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from agentic_r.agent.agent import SearchAgent
from agentic_r.agent.query import ruler_of, sent_anew
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions
from agentic_r.errors import ConfigError, DataError
from agentic_r.exchange.training_sets import row_number
from agentic_r.exchange.upstream_files import SubAnswerLine, read_trajectories
from agentic_r.exchange.upstream_labels import CANDIDATE_FILE, Item
from agentic_r.io import fingerprint, read_json_list, read_jsonl
from agentic_r.protocols import Completion, Dialect
from agentic_r.settings import GivenConfig
from agentic_r.types import Passage, Question, Trajectory, Turn
from agentic_r.utility.subanswers import sure

UNKNOWN = "trajectories of questions that are not trained on"
FURTHER = "further trajectories of a question that has one"
STRAY_CANDIDATES = "searches with candidates, but without a given trajectory"
STRAY_SUBANSWERS = "questions with sub-answers, but without a given trajectory"
REPEATED_CANDIDATES = "searches whose candidates are given again"
REPEATED_SUBANSWERS = "trajectories whose sub-answers are given again"

PROBED = 8
"""So many searching turns of a file are read as the run's dialect reads them."""


@dataclass(frozen=True)
class Given:
    """What there is: candidates by trajectory and search, sub-answers by trajectory.

    Trajectories are named by `Trajectory.key`. `dropped` counts what was left out, by reason.
    """

    trajectories: Sequence[Trajectory] = ()
    candidates: Mapping[tuple[tuple[str, str, str], int], Sequence[Passage]] = field(
        default_factory=dict
    )
    subanswers: Mapping[tuple[str, str, str], Sequence[str | None]] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def in_form(self, agent: SearchAgent) -> tuple[Given, int]:
        """Return the same with every search sent as the agent would, and how many were not.

        The retriever is trained on what it will be sent; upstream's first iteration sends the
        query alone and trains on question and query (contracts B3, B7).
        """
        ruler = ruler_of(agent.retriever)
        own = [sent_anew(each, agent.dialect, agent.form, ruler) for each in self.trajectories]
        pairs = zip(self.trajectories, own, strict=True)
        changed = sum(
            old.sent != new.sent
            for before, after in pairs
            for old, new in zip(before.searches, after.searches, strict=True)
        )
        return replace(self, trajectories=own), changed

    @property
    def digests(self) -> dict[str, str]:
        """Digests of what labels depend on; nothing where nothing is given."""
        ids = {key: [each.id for each in found] for key, found in self.candidates.items()}
        parts = {"candidates": sorted(ids.items()), "sub-answers": sorted(self.subanswers.items())}
        return {f"given {name}": fingerprint(part) for name, part in parts.items() if part}

    def said(self, questions: int) -> Iterator[str]:
        """Say in lines what is taken, of so many questions, and what was left out."""
        if self.trajectories:
            yield (
                f"Given: {len(self.trajectories):,} trajectories of {questions:,} questions, "
                f"candidates of {len(self.candidates):,} searches, sub-answers of "
                f"{len(self.subanswers):,} trajectories"
            )
        for why, count in self.dropped.items():
            yield f"Left out: {count:,} {why}"


class _Named(NamedTuple):
    """One search or trajectory as a file names it, with where it stands for errors."""

    path: str
    dataset: str
    id: str


def read_given(
    settings: GivenConfig, corpus: Corpus, questions: Questions, dialect: Dialect | None = None
) -> Given:
    """Read the files that the settings name, as far as they are about these questions.

    A file's name without its ending is its data set, which counts where two questions share an id.
    Raises ConfigError for candidates or sub-answers without trajectories, and for trajectories of
    which `dialect` cannot read a search; DataError where a file is malformed, has nothing that
    fits, says two things of one search, is about another text or another query than the
    trajectory, or names a passage that the corpus does not have.
    """
    if not settings.trajectories:
        if settings.candidates or settings.sub_answers:
            raise ConfigError(
                "given.trajectories: got nothing, expected the trajectories that given.candidates "
                "and given.sub_answers belong to"
            )
        return Given()
    dropped: Counter[str] = Counter()
    trajectories = _trajectories(settings.trajectories, questions, dropped, dialect)
    candidates = _candidates(settings, corpus, trajectories, dropped)
    subanswers = _subanswers(settings.sub_answers, trajectories, dropped)
    left = {why: count for why, count in dropped.items() if count}
    return Given(list(trajectories.values()), candidates, subanswers, left)


def _trajectories(
    paths: Sequence[str], questions: Questions, dropped: Counter[str], dialect: Dialect | None
) -> dict[tuple[str, str], Trajectory]:
    """Read trajectories by the key of our own question, which takes the place of theirs."""
    by_key = {question.key: question for question in questions}
    by_id: dict[str, list[Question]] = {}
    for question in questions:
        by_id.setdefault(question.id, []).append(question)
    found: dict[tuple[str, str], Trajectory] = {}
    for path in paths:
        if path.endswith(".jsonl"):
            rows = read_jsonl(path, Trajectory)
        else:
            rows, left = read_trajectories(path)
            dropped.update(left)
        fits = []
        for row in rows:
            named = by_id.get(row.question.id, [])
            own = by_key.get(row.question.key) or (named[0] if len(named) == 1 else None)
            if own is None:
                dropped[UNKNOWN] += 1
                continue
            if own.text != row.question.text:
                raise DataError(
                    f"{path}: question {own.id!r}: got {row.question.text!r}, but the questions "
                    f"of this run have {own.text!r}; give the file that was made for them"
                )
            fits.append(Trajectory(row.id, own, row.turns, row.stop, row.error))
            dropped[FURTHER] += own.key in found
            found.setdefault(own.key, fits[-1])
        _check_fits(path, len(fits), f"trajectories of the {len(questions):,} training questions")
        if dialect is not None:
            _check_dialect(path, fits, dialect)
    return found


def _check_fits(path: str, fits: int, expected: str) -> None:
    """Refuse a file of which nothing can be taken: it was made for another run."""
    if not fits:
        raise DataError(
            f"{path}: got nothing that fits this run, expected {expected}; give the file that "
            "was made for them, or leave it out"
        )


def _check_dialect(path: str, trajectories: Sequence[Trajectory], dialect: Dialect) -> None:
    """Refuse trajectories of which the run's dialect reads no search as it was made.

    What the dialect reads by the probabilities of tokens cannot be read again from text.
    """
    if "logprobs" in getattr(dialect, "needs", ()):
        return
    turns = [
        (Trajectory(each.id, each.question, each.turns[:at]), turn)
        for each in trajectories
        for at, turn in enumerate(each.turns)
        if turn.status == "search" and turn.searches
    ][:PROBED]
    if turns and not any(_reads_back(dialect, before, turn) for before, turn in turns):
        before, turn = turns[0]
        name = getattr(dialect, "name", type(dialect).__name__)
        raise ConfigError(
            f"agent.dialect: got {name!r}, but {path}, question {before.question.id!r}, searches "
            f"for {turn.searches[0].query!r} by {turn.text[-80:]!r}, where {name} reads no such "
            "search; expected the dialect that the trajectories are written in"
        )


def _reads_back(dialect: Dialect, before: Trajectory, turn: Turn) -> bool:
    read = dialect.read(Completion(turn.text, "stop", calls=turn.calls), before)
    made, again = ([" ".join(x.query.split()) for x in y.searches] for y in (turn, read))
    return made == again


def _candidates(
    settings: GivenConfig,
    corpus: Corpus,
    trajectories: Mapping[tuple[str, str], Trajectory],
    dropped: Counter[str],
) -> dict[tuple[tuple[str, str, str], int], list[Passage]]:
    """Read the candidates of the trajectories' searches."""
    candidates: dict[tuple[tuple[str, str, str], int], list[Passage]] = {}
    for path in settings.candidates:
        fits = 0
        for item in read_json_list(path, Item, CANDIDATE_FILE):
            named = _Named(path, _dataset(path), item.id)
            trajectory = _of(trajectories, named)
            if trajectory is None:
                dropped[STRAY_CANDIDATES] += len(item.trajectory)
                continue
            for each in item.trajectory:
                search = each.round_index - 1
                _check_query(named, trajectory, search, each.current_query)
                ids = [str(id) for id in each.candidate_passage_ids]
                found = [_passage(corpus, id, named, rows=settings.row_numbers) for id in ids]
                known = candidates.setdefault((trajectory.key, search), found)
                if known is not found:
                    _check_same(named, f"candidates of search {search + 1}", known, found)
                    dropped[REPEATED_CANDIDATES] += 1
                fits += 1
        _check_fits(path, fits, "candidates of searches of the given trajectories")
    return candidates


def _subanswers(
    paths: Sequence[str],
    trajectories: Mapping[tuple[str, str], Trajectory],
    dropped: Counter[str],
) -> dict[tuple[str, str, str], list[str | None]]:
    """Read the sub-answers of the trajectories, one a search."""
    subanswers: dict[tuple[str, str, str], list[str | None]] = {}
    for path in paths:
        fits = 0
        for line in read_jsonl(path, SubAnswerLine):
            named = _Named(path, _dataset(path), line.id)
            trajectory = _of(trajectories, named)
            if trajectory is None:
                dropped[STRAY_SUBANSWERS] += 1
                continue
            pairs = line.query_subanswer_list
            if len(pairs) != len(trajectory.searches):
                raise DataError(
                    f"{path}: question {line.id!r}: got {len(pairs)} sub-answers, but its "
                    f"trajectory has {len(trajectory.searches)} searches; make one of the files "
                    "anew"
                )
            for search, pair in enumerate(pairs):
                _check_query(named, trajectory, search, pair.query)
            found = [sure(pair.subanswer) for pair in pairs]
            known = subanswers.setdefault(trajectory.key, found)
            if known is not found:
                _check_same(named, "sub-answers", known, found)
                dropped[REPEATED_SUBANSWERS] += 1
            fits += 1
        _check_fits(path, fits, "sub-answers of the given trajectories")
    return subanswers


def _check_same(named: _Named, what: str, known: Sequence[object], found: Sequence[object]) -> None:
    if known != found:
        raise DataError(
            f"{named.path}: question {named.id!r}: got the {what} twice, and they differ; "
            "expected one of the two, so take the other out"
        )


def _dataset(path: str) -> str:
    return Path(path).name.split(".")[0]


def _of(trajectories: Mapping[tuple[str, str], Trajectory], named: _Named) -> Trajectory | None:
    """Return the trajectory that a file is about: by data set and id, else by an id of its own."""
    exact = trajectories.get((named.dataset, named.id))
    if exact is not None:
        return exact
    found = [each for (_, id), each in trajectories.items() if id == named.id]
    return found[0] if len(found) == 1 else None


def _check_query(named: _Named, trajectory: Trajectory, search: int, query: str) -> None:
    searches = trajectory.searches
    own = searches[search].query if 0 <= search < len(searches) else None
    if own != query:
        known = "no such search" if own is None else repr(own)
        raise DataError(
            f"{named.path}: question {named.id!r}, search {search + 1}: got the query {query!r}, "
            f"but the trajectory has {known}; one of the files was made anew, so make the other "
            "anew too"
        )


def _passage(corpus: Corpus, id: str, named: _Named, *, rows: bool) -> Passage:
    if rows:
        try:
            return corpus[row_number(id, len(corpus))]
        except DataError as error:
            raise DataError(f"{named.path}: question {named.id!r}: {error}") from error
    if id not in corpus:
        raise DataError(
            f"{named.path}: question {named.id!r}: passage {id!r} is not in the corpus, expected "
            f"the ids of its {len(corpus):,} passages; if they are row numbers, set "
            "given.row_numbers = true"
        )
    return corpus.get(id)
