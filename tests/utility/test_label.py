from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r.config import UtilityConfig
from agentic_r.errors import ConfigError, DataError, LLMError
from agentic_r.io import Rows
from agentic_r.metrics import answer_in, exact_match
from agentic_r.protocols import SEPARATOR, JudgeRequest
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn
from agentic_r.utility.by_rule import OfflineJudge
from agentic_r.utility.label import Labeller, label, rule_of
from agentic_r.utility.labelled import NO_TURNS, NOTHING_FOUND, Labelled, Labels, collect
from agentic_r.utility.select import NO_CORRECT, NO_RELEVANT, NOT_MEASURED
from agentic_r.utility.subanswers import HopSubAnswers

SETTINGS = UtilityConfig(candidates=8, negatives=4)
UPSTREAM = msgspec.structs.replace(SETTINGS, rule="upstream")
FILMS = 9


def question(n: int, dataset: str = "d") -> Question:
    hops = [
        {"question": f"Who directed film{n}?", "answer": f"person{n}", "passage_id": f"f{n}"},
        {"question": "Where was #1 born?", "answer": f"city{n}", "passage_id": f"p{n}"},
    ]
    text = f"Where was the director of film{n} born?"
    return Question(f"q{n}", text, (f"city{n}",), dataset, {"hops": hops})


class Corpus:
    """Ranks by word overlap with the query; useless passages of odd films beat the gold ones."""

    def __init__(self) -> None:
        self.passages = [Passage(f"f{n}", f"person{n} directed film{n}") for n in range(FILMS)]
        self.passages += [Passage(f"p{n}", f"person{n} was born in city{n}") for n in range(FILMS)]
        self.passages += [Passage(f"x{n}", f"film{n} directed born where") for n in range(FILMS)]

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        return [self.one(query, k) for query in queries]

    def one(self, query: str, k: int) -> list[Hit]:
        words = set(query.rpartition("[SEP]")[2].lower().replace("?", "").split())
        score = {each.id: len(words & set(each.text.split())) for each in self.passages}
        score.update({f"x{n}": score[f"x{n}"] + 1 for n in range(1, FILMS, 2)})
        ranked = sorted(self.passages, key=lambda each: -score[each.id])
        return [Hit(each, float(score[each.id])) for each in ranked[:k]]


class Agent:
    """Follows the hops while its evidence holds their answers; at most `turns` turns."""

    def __init__(self, turns: int = 4) -> None:
        self.corpus = Corpus()
        self.turns = turns
        self.continued: list[str] = []

    def __call__(self, starts: Sequence[Trajectory]) -> list[Trajectory]:
        self.continued += [start.id for start in starts]
        return [self.run(start) for start in starts]

    def run(self, start: Trajectory) -> Trajectory:
        trajectory = start
        while len(trajectory.turns) < self.turns:
            trajectory = self.step(trajectory)
            if trajectory.stop:
                return trajectory
        return msgspec.structs.replace(trajectory, stop="budget")

    def step(self, trajectory: Trajectory) -> Trajectory:
        at = trajectory.question
        number = at.id[1:]
        shown = [hit.passage.text for search in trajectory.searches for hit in search.hits]
        knows = any(answer_in(text, f"person{number}") for text in shown)
        if any(answer_in(text, f"city{number}") for text in shown):
            answer = f"city{number}"
        elif len(trajectory.searches) < (2 if knows else 1):
            query = f"Where was person{number} born?" if knows else f"Who directed film{number}?"
            string = f"{at.text}{SEPARATOR}{query}"
            search = Search(query, string, tuple(self.corpus.one(string, 1)))
            turn = Turn(f"<search>{query}</search>", "search", (search,), observation="shown")
            return msgspec.structs.replace(trajectory, turns=(*trajectory.turns, turn))
        else:
            answer = "unknown"
        turn = Turn(answer, "answer", answer=answer)
        return msgspec.structs.replace(trajectory, turns=(*trajectory.turns, turn), stop="answered")


def reward(question: Question, answer: str | None) -> float:
    return exact_match(answer, question.answers)


def runs(count: int = FILMS, dataset: str = "d") -> list[Trajectory]:
    agent = Agent()
    starts = [Trajectory(f"q{n}", question(n, dataset)) for n in range(count)]
    return [agent.run(start) for start in starts]


def labelled(trajectories: Sequence[Trajectory], **changes: object) -> Labels:
    parts: dict[str, object] = {
        "retriever": Corpus(),
        "continue_": Agent(),
        "judge": OfflineJudge(),
        "subanswers": HopSubAnswers(),
        "reward": reward,
        "settings": SETTINGS,
        "seed": 3,
    }
    return label(trajectories, **(parts | changes))  # type: ignore[arg-type]


def test_gold_passages_of_both_hops_become_positives() -> None:
    labels = labelled(runs())
    by_query = {example.query: example for example in labels.examples}
    for n in range(FILMS):
        first = f"{question(n).text}{SEPARATOR}Who directed film{n}?"
        assert by_query[first].positives == (f"f{n}",)
        assert len(by_query[first].negatives) == 4
    later = [example for example in labels.examples if "Where was person" in example.query]
    assert later
    assert all(each.positives == (f"p{each.question_id[1:]}",) for each in later)
    assert labels.costs.kept == len(labels.examples)
    assert sum(labels.report.values()) == labels.costs.searches - labels.costs.kept


def test_searches_inside_a_continuation_are_labelled_once_and_one_level_deep() -> None:
    assert [len(each.searches) for each in runs(3)] == [2, 1, 2]
    labels = labelled(runs(3))
    derived = [each for row in labels.rows for each in row.derived]
    assert [each.id for each in derived] == ["q1+s0"]
    assert (labels.costs.searches, labels.costs.continued) == (6, 1)
    for row in labels.rows:
        places = {(each.trajectory_id, each.search): each.sent for each in row.utilities}
        assert len(set(places.values())) == len(places) == 2
        assert [each.text for each in row.subanswers] == [
            f"person{row.question_id[1:]}",
            f"city{row.question_id[1:]}",
        ]
    off = labelled(runs(3), settings=msgspec.structs.replace(SETTINGS, continued_searches=False))
    assert off.costs.continued == 0
    assert all("+" not in each.trajectory_id for each in off.utilities)


def test_with_relevance_alone_nothing_is_continued_and_nothing_followed() -> None:
    alone = msgspec.structs.replace(UPSTREAM, signals="relevance")
    labels = labelled(runs(3), settings=alone)
    assert (labels.costs.continuations, labels.costs.continued) == (0, 0)
    assert labels.examples
    with pytest.raises(ConfigError, match="with the rule graded, which needs both"):
        labelled(runs(3), settings=msgspec.structs.replace(SETTINGS, signals="relevance"))


def test_lazy_labels_equal_exhaustive_ones_at_a_fraction_of_the_continuations() -> None:
    lazy = labelled(runs())
    full = labelled(runs(), settings=msgspec.structs.replace(SETTINGS, exhaustive=True))
    assert lazy.examples == full.examples
    assert lazy.report == full.report
    assert full.costs.continuations == full.costs.exhaustive == lazy.costs.exhaustive
    assert lazy.costs.continuations <= lazy.costs.searches
    whys = {each.why for each in lazy.utilities}
    assert whys == {"measured", "not needed"}
    assert {each.why for each in full.utilities} == {"measured"}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10), st.integers(0, 30), st.booleans())
def test_an_interrupted_run_ends_with_the_same_labels(chunk: int, kept: int, even: bool) -> None:
    trajectories = runs()
    rows: list[Labelled] = []
    whole = labelled(trajectories, chunk=chunk, on_rows=rows.extend)
    done = rows[:kept] if not even else rows[::2]
    new: list[Labelled] = []
    again = labelled(trajectories, chunk=chunk, done=done, on_rows=new.extend)
    assert again == whole
    assert {row.key for row in new} == {row.key for row in rows} - {row.key for row in done}
    assert labelled(trajectories, chunk=chunk + 3) == whole


def test_rows_survive_the_disk_and_finished_chunks_are_not_redone(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    trajectories = runs(6)

    class Killed(Agent):
        def __call__(self, starts: Sequence[Trajectory]) -> list[Trajectory]:
            if any(start.question.id == "q4" for start in starts):
                raise KeyboardInterrupt
            return super().__call__(starts)

    with Rows(path, Labelled) as first, pytest.raises(KeyboardInterrupt):
        labelled(trajectories, chunk=2, continue_=Killed(), on_rows=first.extend)
    second = Rows(path, Labelled)
    assert [row.question_id for row in second.rows] == ["q0", "q1", "q2", "q3"]
    agent = Agent()
    done = list(second.rows)
    labels = labelled(trajectories, chunk=2, done=done, continue_=agent, on_rows=second.extend)
    assert {name[:2] for name in agent.continued} == {"q4", "q5"}
    assert labels == labelled(trajectories, chunk=2)
    second.close(order=lambda row: row.key)
    assert collect(Rows(path, Labelled).rows, rule=rule_of(SETTINGS), seed=3) == labels


def test_canonical_order_does_not_depend_on_the_order_of_work() -> None:
    trajectories = runs()
    labels = labelled(trajectories)
    assert labelled(trajectories[::-1]) == labels
    keys = [(each.trajectory_id, each.search, each.rank) for each in labels.utilities]
    assert keys == sorted(keys)


def test_equal_ids_in_two_data_sets_stay_apart() -> None:
    both = labelled([*runs(2, "a"), *runs(2, "b")])
    assert [row.key for row in both.rows] == [("a", "q0"), ("a", "q1"), ("b", "q0"), ("b", "q1")]
    assert both.costs.kept == labelled(runs(2, "a")).costs.kept * 2
    (first,) = runs(1)
    with pytest.raises(DataError, match="got two trajectories with id 'q0'"):
        labelled([first, first])


def test_several_trajectories_of_a_question_share_a_row_and_their_derived_searches() -> None:
    one = runs(2)[1]
    twin = msgspec.structs.replace(one, id="q1b")
    labels = labelled([one, twin], chunk=1)
    (row,) = labels.rows
    assert row.searches == 2 * len(one.searches) + 1
    assert [each.id for each in row.derived] == ["q1+s0"]


def test_searches_of_the_last_call_are_left_out_and_counted() -> None:
    spent = [Agent(turns=1).run(Trajectory("q0", question(0)))]
    assert spent[0].stop == "budget"
    labels = labelled(spent)
    assert labels.report == {NO_TURNS: 1}
    assert labels.rows[0].searches == 0
    assert labels.utilities == ()


def test_a_question_without_searches_counts_as_done() -> None:
    turn = Turn("<answer>x</answer>", "answer", answer="x")
    none = Trajectory("q0", question(0), (turn,), "answered")
    labels = labelled([none])
    assert labels.rows == (Labelled("d", "q0"),)
    assert (labels.examples, labels.report) == ((), {})


def test_searches_without_a_sub_answer_and_without_success_are_counted() -> None:
    (one,) = runs(1)
    odd = msgspec.structs.replace(one.turns[0], searches=(Search("odd", "odd"),))
    unsure = Trajectory("q0", question(0), (odd,), "answered")
    assert labelled([unsure]).report == {NO_RELEVANT: 1}

    def wrong(starts: Sequence[Trajectory]) -> list[Trajectory]:
        turn = Turn("no", "answer", answer="no")
        return [
            msgspec.structs.replace(start, turns=(*start.turns, turn), stop="answered")
            for start in starts
        ]

    for rule in (UPSTREAM, msgspec.structs.replace(SETTINGS, unanswered="drop")):
        dropped = labelled([one], continue_=wrong, settings=rule)
        assert dropped.report == {NO_CORRECT: len(one.searches)}
    judged = labelled([one], continue_=wrong)
    assert (judged.report, len(judged.examples)) == ({}, len(one.searches))


class Few(Corpus):
    """Finds fewer passages than are asked for, nothing at all for some films."""

    def one(self, query: str, k: int) -> list[Hit]:
        return [] if "film1" in query else super().one(query, k)[:5]


def test_searches_with_few_candidates_or_none_are_labelled_or_counted() -> None:
    labels = labelled(runs(3), retriever=Few(), settings=UPSTREAM)
    found = Counter((each.trajectory_id, each.search) for each in labels.utilities)
    assert set(found.values()) == {5}
    assert {name for name, _ in found} == {"q0", "q2"}
    assert labels.report == {NOTHING_FOUND: 1}
    assert labels.costs.searches == labels.costs.kept + 1
    assert all(len(each.negatives) == 4 for each in labels.examples)
    many = msgspec.structs.replace(UPSTREAM, negatives=15)
    assert labelled(runs(3), retriever=Few(), settings=many).examples == ()
    graded = labelled(runs(3), retriever=Few())
    assert graded.report == labels.report
    assert all(1 <= len(each.negatives) <= 4 for each in graded.examples)


class Failing(OfflineJudge):
    """Fails for the searches of some films, as a server that refuses a prompt does."""

    def __init__(self, *films: str) -> None:
        self.films = films

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        if any(film in request.query for film in self.films):
            raise LLMError("HTTP 400: prompt too long")
        return await super().relevance(request)


def test_a_judge_that_fails_costs_its_search_only() -> None:
    labels = labelled(runs(), judge=Failing("film3"))
    assert labels.report[NOT_MEASURED] == 1
    failed = [each for each in labels.utilities if each.relevance is None]
    assert {each.why for each in failed} == {"failed: HTTP 400: prompt too long"}
    assert {each.trajectory_id for each in failed} == {"q3"}


def test_a_judge_that_is_down_stops_the_run() -> None:
    rows: list[Labelled] = []
    with pytest.raises(LLMError, match="prompt too long"):
        labelled(runs(), judge=Failing("film", "born"), on_rows=rows.extend)
    assert rows == []


def test_label_chunk_returns_one_row_per_question_in_order() -> None:
    labeller = Labeller(
        retriever=Corpus(),
        continue_=Agent(),
        judge=OfflineJudge(),
        subanswers=HopSubAnswers(),
        reward=reward,
        settings=SETTINGS,
    )
    trajectories = runs(4)[::-1]
    rows = labeller.label_chunk(trajectories)
    assert [row.question_id for row in rows] == ["q3", "q2", "q1", "q0"]
    assert collect(rows, rule=rule_of(SETTINGS), seed=3) == labelled(trajectories)
