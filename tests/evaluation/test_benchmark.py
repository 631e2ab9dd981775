from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, Row, record, score, summarise, top3
from agentic_r.types import Hit, Passage, Question, Search, Stop, Trajectory, Turn


def passage(name: str) -> Passage:
    return Passage(name, f"text of {name}")


def question(id: str, hops: int = 2, **metadata: object) -> Question:
    steps = [
        {"question": f"hop {n} of {id}?", "answer": f"a{n}", "passage_id": f"{id}-p{n}"}
        for n in range(hops)
    ]
    return Question(id, f"what about {id}?", ("The Answer",), "made", {"hops": steps, **metadata})


def trajectory(
    asked: Question, queries: Sequence[str], answer: str | None, stop: Stop = "answered"
) -> Trajectory:
    turns = [
        Turn("s", "search", (Search(query, f"{asked.text} [SEP] {query}"),), observation="o")
        for query in queries
    ]
    return Trajectory(f"made/{asked.id}", asked, (*turns, Turn("a", "answer", answer=answer)), stop)


class Fixed:
    """A retriever with a table: what is not in it gets noise; counts its calls."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table = table
        self.calls: list[tuple[int, int]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        self.calls.append((len(queries), k))
        noise = [f"noise{n}" for n in range(9)]
        return [
            [Hit(passage(p), 1.0 / (n + 1)) for n, p in enumerate((self.table.get(q) or noise)[:k])]
            for q in queries
        ]


def test_one_row_holds_the_means_of_its_questions() -> None:
    first = question("q1", root="r1", seen=True)
    second = question("q2", hops=1, root="r2", seen=False)
    runs = [
        trajectory(first, ["hop 0 of q1?", "Hop 1 of q1"], "the answer."),
        trajectory(second, ["hop 0 of q2?"], "answer wrong"),
    ]
    retriever = Fixed({runs[0].searches[0].sent: ["x", "y", "q1-p0"]})
    row, records = score(runs, "system", 2, 3.5, top3(runs, retriever))
    assert retriever.calls == [(3, 3)]
    assert (row.name, row.k, row.n, row.seconds) == ("system", 2, 2, 3.5)
    assert row.em == 0.5 and row.f1 == pytest.approx((1 + 2 / 3) / 2)
    assert row.hit_at_3 == pytest.approx(1 / 3) and row.asked == 3
    assert row.searches == 1.5
    assert (row.em_seen, row.em_unseen, row.n_seen, row.n_unseen) == (1.0, 0.0, 1, 1)
    assert row.em_by_hops == {"1": 0.0, "2": 1.0} and row.n_by_hops == {"1": 1, "2": 1}
    assert [r.root for r in records] == ["r1", "r2"]
    assert summarise(records, "system", 2, 3.5) == row


def test_a_gold_passage_on_rank_four_is_no_hit_and_rank_three_is_one() -> None:
    asked = question("q", hops=1)
    run = trajectory(asked, ["hop 0 of q?"], None)
    third = [[[Hit(passage(p), 1.0) for p in ("a", "b", "q-p0")]]]
    fourth = [[[Hit(passage(p), 1.0) for p in ("a", "b", "c", "q-p0")]]]
    assert score([run], "r", 1, 0.0, third)[0].hit_at_3 == 1.0
    assert score([run], "r", 5, 0.0, fourth)[0].hit_at_3 == 0.0


def test_searches_that_ask_no_hop_do_not_count_for_hit_at_3() -> None:
    asked = question("q", hops=1)
    run = trajectory(asked, ["something else", "hop 0 of q?"], "the answer")
    hits = [[[Hit(passage("q-p0"), 1.0)], [Hit(passage("q-p0"), 1.0)]]]
    row, records = score([run], "r", 1, 0.0, hits)
    assert row.hit_at_3 == 1.0 and row.asked == 1
    assert (records[0].asked, records[0].hits, records[0].searches) == (1, 1, 2)


def test_what_was_not_measured_is_none_and_not_zero() -> None:
    plain = Question("q", "who?", ("someone",))
    hop = {"question": "who?", "answer": "someone"}
    unnamed = Question("u", "who?", ("someone",), metadata={"hops": [hop]})
    runs = [trajectory(plain, ["who?"], "someone"), trajectory(unnamed, ["who?"], "someone")]
    row, records = score(runs, "r", 1, 0.0, top3(runs, Fixed({})))
    assert row.hit_at_3 is None and row.em_seen is None and row.em_unseen is None
    assert records[0].root == "q" and records[0].hops is None and records[0].seen is None
    row, records = score(runs, "r", 1, 0.0)
    assert row.hit_at_3 is None and records[0].asked is None and records[0].hits is None


def test_metadata_of_other_data_sets_is_not_mistaken_for_ours() -> None:
    asked = question("q", hops=3, hop_count="three", seen="yes", root=7)
    _, (found,) = score([trajectory(asked, [], "x")], "r", 1, 0.0)
    assert (found.hops, found.seen, found.root) == (3, None, "7")


def test_a_failed_trajectory_counts_as_wrong_and_is_told() -> None:
    runs = [trajectory(question("q"), [], None, "error"), trajectory(question("p"), [], "answer")]
    row, _ = score(runs, "r", 1, 0.0, [[], []])
    assert row.em == 0.5 and row.failed == 1


def test_top3_asks_nothing_when_nothing_was_searched() -> None:
    retriever = Fixed({})
    assert top3([trajectory(question("q"), [], "x")], retriever) == [[]]
    assert retriever.calls == []


def test_top3_sends_each_string_once_and_keeps_the_order() -> None:
    run = trajectory(question("q"), ["one", "two", "one"], "x")
    retriever = Fixed({s.sent: [s.query] for s in run.searches})
    found = top3([run], retriever)
    assert [[hit.passage.id for hit in hits] for hits in found[0]] == [["one"], ["two"], ["one"]]
    assert retriever.calls == [(2, 3)]


def test_misuse_is_refused_in_one_line() -> None:
    run = trajectory(question("q"), ["hop 0 of q?"], "x")
    with pytest.raises(DataError, match="no questions"):
        score([], "r", 1, 0.0)
    with pytest.raises(DataError, match="twice"):
        score([run, run], "r", 1, 0.0, [[[]], [[]]])
    with pytest.raises(DataError, match="got the top hits of 0 trajectories, expected 1"):
        score([run], "r", 1, 0.0, [])
    with pytest.raises(DataError, match="got the top hits of 2 searches, expected 1"):
        score([run], "r", 1, 0.0, [[[], []]])


def test_records_and_rows_survive_the_disk() -> None:
    row, records = score([trajectory(question("q", seen=True), [], "answer")], "r", 1, 0.0, [[]])
    assert msgspec.json.decode(msgspec.json.encode(records), type=list[Record]) == records
    assert msgspec.json.decode(msgspec.json.encode(row), type=Row) == row
    assert row.em_by_hops == {"2": 1.0}


def shown(run: Trajectory, *lists: Sequence[str]) -> Trajectory:
    """Give the searches of a trajectory their hits, each of whose text names its passage."""
    turns = list(run.turns)
    for at, names in enumerate(lists):
        hits = tuple(Hit(Passage(name, f"text of {name}"), 1.0) for name in names)
        (search,) = turns[at].searches
        found = msgspec.structs.replace(search, hits=hits)
        turns[at] = msgspec.structs.replace(turns[at], searches=(found,))
    return msgspec.structs.replace(run, turns=tuple(turns))


def test_answers_and_gold_are_looked_for_in_what_was_shown() -> None:
    asked = question("q1")
    run = shown(trajectory(asked, ["a", "b", "c"], "x"), ["q1-p0"], ["the answer", "z"], ["y"])
    found = record(run)
    assert (found.answer_searches, found.answer_hits) == (3, 1)
    assert (found.gold, found.found) == (2, 1)
    row = summarise([found], "row", 1, 1.0)
    assert row.answer_recall == pytest.approx(1 / 3)
    assert row.gold_recall == 0.5
    assert row.hit_at_3 is None  # nobody looked at the top 3


def test_no_passage_can_hold_a_yes() -> None:
    yes = Question("q", "is it?", ("Yes",))
    found = record(shown(trajectory(yes, ["a"], "yes"), ["yes"]))
    assert (found.answer_searches, found.answer_hits, found.em) == (0, 0, 1.0)
    assert (found.gold, found.found) == (None, None)
    row = summarise([found], "row", 1, 1.0)
    assert (row.answer_recall, row.gold_recall) == (None, None)


def test_how_a_trajectory_ended_and_what_it_wrote() -> None:
    asked = question("q1")
    good = trajectory(asked, ["a"], "x")
    counted = msgspec.structs.replace(
        good, turns=tuple(msgspec.structs.replace(turn, new_tokens=7) for turn in good.turns)
    )
    odd = Turn("?", "invalid", new_tokens=4)
    cut = msgspec.structs.replace(good, turns=(good.turns[0], odd, odd), stop="budget")
    records = [record(counted), msgspec.structs.replace(record(cut), id="q2")]
    assert [r.tokens for r in records] == [14, None]
    assert [r.invalid_turns for r in records] == [0, 2]
    row = summarise(records, "row", 1, 1.0)
    assert (row.tokens, row.unfinished, row.invalid) == (14.0, 0.5, 0.5)


def test_what_a_question_cost_counts_every_call_in_full() -> None:
    base = trajectory(question("q1"), ["a"], "x")
    turns = [
        msgspec.structs.replace(turn, prompt_tokens=100 * (n + 1), new_tokens=10)
        for n, turn in enumerate(base.turns)
    ]
    told = msgspec.structs.replace(base, turns=tuple(turns))
    found = record(told, price=(2.0, 50.0))
    assert (found.prompt_tokens, found.tokens) == (300, 20)
    assert found.cost == pytest.approx((300 * 2 + 20 * 50) / 1e6)
    row = summarise([found], "row", 1, 1.0)
    assert row.cost == pytest.approx(1.6)  # of a thousand questions
    assert record(told).cost is None
    half = msgspec.structs.replace(told, turns=(turns[0], base.turns[1]))
    lacking = record(half, price=(2.0, 50.0))
    assert (lacking.prompt_tokens, lacking.cost) == (None, None)


def test_turns_without_prompt_tokens_are_written_as_before() -> None:
    raw = msgspec.json.encode(Turn("t", "answer"))
    assert b"prompt_tokens" not in raw
    assert msgspec.json.decode(raw, type=Turn) == Turn("t", "answer")


def test_patterns_are_scored_as_patterns() -> None:
    asked = Question("q", "when?", (r"19\d\d",), metadata={"patterns": True})
    found = record(trajectory(asked, [], "in 1984"))
    assert (found.em, found.acc) == (0.0, 1.0)
    assert found.answer_searches == 0


def test_what_old_records_lack_is_not_measured() -> None:
    old = msgspec.json.decode(
        b'{"dataset":"d","id":"1","root":"r","em":1.0,"f1":1.0,"searches":2}', type=Record
    )
    row = summarise([old], "row", 1, 1.0)
    assert [row.acc, row.precision, row.tokens, row.unfinished, row.invalid] == [None] * 5
