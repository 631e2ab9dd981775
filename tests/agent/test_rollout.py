"""The one rollout: ends, budgets, evidence, errors, and restarting from any prefix."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.rollout import run_rollout
from agentic_r.agent.searches import SearchQueue
from agentic_r.errors import ConfigError, ContextError, DataError, LLMError
from agentic_r.protocols import Capabilities, Completion, Sampling
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.types import Hit, Passage, Question, Search, Stop, Trajectory, Turn

A, B, C = (Passage(name, f"text of {name}", name.upper()) for name in "abc")
TABLE = TableRetriever({"one": [A, B], "two": [B, C]}, default=[C])
SPOKEN = SearchR1("Question: {question}\n")


def start(text: str = "Who?", name: str = "t") -> Trajectory:
    return Trajectory(name, Question(name, text, ("x",), "set"))


def roll(
    llm: object,
    starts: Sequence[Trajectory],
    retriever: object = TABLE,
    *,
    turns: int = 4,
    form: str = "query",
    temperature: float = 0.0,
) -> list[Trajectory]:
    return run_rollout(
        llm,  # type: ignore[arg-type]
        retriever,  # type: ignore[arg-type]
        starts,
        SPOKEN,
        k=2,
        form=form,
        turns=turns,
        sampling=Sampling(max_tokens=40, temperature=temperature, seed=3),
    )


def test_search_read_answer() -> None:
    llm = ScriptedLLM(["<search> one </search> gone", "<answer> x </answer> gone"])
    [end] = roll(llm, [start()])
    assert (end.stop, end.answer, len(end.turns)) == ("answered", "x", 2)
    [search] = end.searches
    assert (search.query, search.sent) == ("one", "one")
    assert [hit.passage for hit in search.hits] == [A, B]
    assert end.turns[0].text == "<search> one </search>"
    assert llm.prompts[1] == (
        "Question: Who?\n<search> one </search>\n\n<information>\n"
        'Doc 1(Title: "A") text of a\nDoc 2(Title: "B") text of b\n\n</information>\n\n'
    )
    assert llm.samplings[0].stop == ("</search>", "</answer>")


def test_the_retriever_is_sent_the_form() -> None:
    retriever = TableRetriever({"Who? [SEP] one": [B]})
    llm = ScriptedLLM(["<search> one </search>", "<answer> x </answer>"])
    [end] = roll(llm, [start()], retriever, form="question+query")
    assert end.searches[0].sent == "Who? [SEP] one"
    assert retriever.calls == [["Who? [SEP] one"]]


@pytest.mark.parametrize(
    ("script", "stop", "calls", "searches"),
    [
        (["<search> one </search>"] * 9, "budget", 3, 3),
        (["<search> one </search>", "no idea"], "invalid", 2, 1),
        (["<answer> x </answer>"], "answered", 1, 0),
        ([], "error", 1, 0),
        (["<search> one </search>"], "error", 2, 1),
    ],
)
def test_ends(script: list[str], stop: Stop, calls: int, searches: int) -> None:
    llm = ScriptedLLM(script)
    [end] = roll(llm, [start()], turns=3)
    assert (end.stop, len(llm.prompts), len(end.searches)) == (stop, calls, searches)
    assert bool(end.error) == (stop == "error")
    assert all(turn.observation for turn in end.turns if turn.searches)


def test_running_out_of_tokens_has_its_own_name() -> None:
    class Endless:
        async def complete(self, prompt: str, sampling: Sampling) -> Completion:
            return Completion("<search> and and and", "length")

    assert roll(Endless(), [start()])[0].stop == "length"


def test_turns_of_the_start_count() -> None:
    llm = ScriptedLLM(lambda prompt: "<search> one </search>")
    [whole] = roll(llm, [start()], turns=4)
    cut = whole.at_search(1, C)
    [end] = roll(llm, [cut], turns=4)
    assert len(end.turns) == 4
    assert end.searches[1].hits == (Hit(C, 1.0),)
    assert "text of c" in (end.turns[1].observation or "")
    assert "text of a" not in (end.turns[1].observation or "")
    [none_left] = roll(llm, [cut], turns=2)
    assert (none_left.stop, len(none_left.turns)) == ("budget", 2)
    assert none_left.turns[1].observation is not None


def test_a_start_that_has_ended_is_returned_as_it_is() -> None:
    llm = ScriptedLLM(["<answer> x </answer>"])
    [end] = roll(llm, [start()])
    reopened = msgspec.structs.replace(end, stop=None)
    assert roll(llm, [end, reopened]) == [end, end]
    assert len(llm.prompts) == 1


def test_searches_of_one_moment_are_one_call_without_repeats() -> None:
    retriever = TableRetriever({"one": [A], "two": [B]})

    def script(prompt: str) -> str:
        if "<information>" in prompt:
            return "<answer> x </answer>"
        return f"<search> {'one' if 'even' in prompt else 'two'} </search>"

    starts = [start("odd" if n % 2 else "even", str(n)) for n in range(6)]
    ends = roll(ScriptedLLM(script), starts, retriever)
    assert retriever.calls == [["one", "two"]]
    assert [end.id for end in ends] == [str(n) for n in range(6)]
    assert [end.searches[0].hits[0].passage for end in ends] == [A, B] * 3


def test_an_error_of_the_retriever_is_raised_and_not_recorded() -> None:
    class Broken:
        def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            raise DataError("index gone")

    with pytest.raises(DataError, match="index gone"):
        roll(ScriptedLLM(lambda p: "<search> a </search>"), [start(), start()], Broken())


def test_one_failed_call_ends_one_trajectory() -> None:
    class Sometimes:
        async def complete(self, prompt: str, sampling: Sampling) -> Completion:
            if "bad" in prompt:
                raise LLMError("gone away")
            return Completion("<answer> x </answer>", "stop")

    good, bad = roll(Sometimes(), [start("good"), start("bad")])
    assert (good.stop, bad.stop, bad.error) == ("answered", "error", "gone away")


def test_a_slow_trajectory_holds_up_no_other() -> None:
    order: list[str] = []

    class Slow:
        async def complete(self, prompt: str, sampling: Sampling) -> Completion:
            if "slow" in prompt:
                await asyncio.sleep(0.2)
            order.append("slow" if "slow" in prompt else "fast")
            done = "<information>" in prompt
            return Completion("<answer> x </answer>" if done else "<search> a </search>", "stop")

    roll(Slow(), [start("slow"), start("fast")])
    assert order == ["fast", "fast", "slow", "slow"]


def test_each_turn_of_each_trajectory_is_sampled_with_its_own_seed() -> None:
    llm = ScriptedLLM(lambda prompt: "<search> a </search>")
    roll(llm, [start(name="a"), start(name="b")], turns=3, temperature=1.0)
    seeds = [sampling.seed for sampling in llm.samplings]
    assert len(set(seeds)) == 6
    again = ScriptedLLM(lambda prompt: "<search> a </search>")
    roll(again, [start(name="b")], turns=3, temperature=1.0)
    assert {sampling.seed for sampling in again.samplings} < set(seeds)


def test_nonsense_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"agent\.turns: got -1"):
        roll(ScriptedLLM([]), [start()], turns=-1)


def test_an_identical_search_is_made_once_in_a_rollout() -> None:
    retriever = TableRetriever({"one": [A], "two": [B]})

    def script(prompt: str) -> str:
        searches = prompt.count("<information>")
        return ["<search> one </search>", "<search> two </search>", "<answer> x </answer>"][
            searches
        ]

    one_by_one = run_rollout(
        ScriptedLLM(script),
        retriever,
        [start("a", "1"), start("b", "2"), start("c", "3")],
        SPOKEN,
        k=2,
        form="query",
        turns=4,
        sampling=Sampling(max_tokens=40),
        window=1,
    )
    assert retriever.calls == [["one"], ["two"]]
    assert [len(end.searches) for end in one_by_one] == [2, 2, 2]
    assert {end.searches[1].hits[0].passage for end in one_by_one} == {B}


def test_a_failed_search_is_made_again() -> None:
    class Once:
        calls = 0

        def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            self.calls += 1
            if self.calls == 1:
                raise DataError("gone for a moment")
            return [[Hit(A, 1.0)] for _ in queries]

    async def twice() -> tuple[Hit, ...]:
        queue = SearchQueue(Once(), 1)
        with pytest.raises(DataError):
            await queue.search("one")
        return await queue.search("one")

    assert asyncio.run(twice()) == (Hit(A, 1.0),)


def test_a_slow_retriever_holds_up_no_model_call() -> None:
    order: list[str] = []

    class Slow:
        def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            time.sleep(0.2)
            order.append("found")
            return [[Hit(A, 1.0)] for _ in queries]

    class Writes:
        async def complete(self, prompt: str, sampling: Sampling) -> Completion:
            if "searcher" in prompt:
                done = "<information>" in prompt
                return Completion(
                    "<answer> x </answer>" if done else "<search> a </search>", "stop"
                )
            await asyncio.sleep(0.05)
            order.append("wrote")
            return Completion("<answer> x </answer>", "stop")

    roll(Writes(), [start("searcher"), start("other")], Slow())
    assert order == ["wrote", "found"]


def test_outgrowing_the_context_is_an_outcome_with_a_reason() -> None:
    class Short:
        async def complete(self, prompt: str, sampling: Sampling) -> Completion:
            if "<information>" in prompt:
                raise ContextError("got a prompt of 99 tokens, expected 1 to 64")
            return Completion("<search> a </search>", "stop")

    ends = roll(Short(), [start(), start()])
    assert [(end.stop, len(end.turns)) for end in ends] == [("context", 1)] * 2
    assert "99 tokens" in ends[0].error


def test_a_model_that_cannot_do_what_is_needed_is_refused_before_any_work() -> None:
    class ChatOnly(ScriptedLLM):
        capabilities = Capabilities(text=False, chat=True)

    llm = ChatOnly(["<answer> x </answer>"])
    with pytest.raises(ConfigError, match=r"ChatOnly cannot continue plain text.*SearchR1 needs"):
        roll(llm, [start()])
    assert llm.prompts == []
    bare = ScriptedLLM(["<answer> x </answer>"])
    with pytest.raises(ConfigError, match="tell the token ids"):
        run_rollout(
            bare,
            TABLE,
            [start()],
            SPOKEN,
            k=1,
            form="query",
            turns=2,
            sampling=Sampling(),
            keep_tokens=True,
        )


class Letters(SearchR1):
    """A protocol that a random model can speak: a turn ends at a letter, the last with answer."""

    stop = ("a", "e", "o")

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Search with what was written unless it ends with o."""
        text = completion.text
        if completion.finish == "length":
            return Turn(text, "length")
        if text.endswith("o"):
            return Turn(text, "answer", answer=text[-12:].strip())
        return Turn(text, "search", (Search(text[-12:].strip(), ""),))


def test_restarting_from_any_prefix_gives_the_same_end(model_folder: Path) -> None:
    passages = [Passage(str(n), f"near {n} the bao of dio", "fau") for n in range(40)]

    class Hashed:
        def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            rows = [random.Random(query).sample(passages, k) for query in queries]
            return [[Hit(passage, 1.0) for passage in row] for row in rows]

    llm = LocalLLM(model_folder, batch=5, device="cpu")
    spoken = Letters("{question}\n")
    starts = [start(f"the {n} of bao near {n * n}", str(n)) for n in range(12)]

    def carry(some: list[Trajectory]) -> list[Trajectory]:
        return run_rollout(
            llm, Hashed(), some, spoken, k=2, form="query", turns=5, sampling=Sampling(30)
        )

    ends = carry(starts)
    prefixes = [
        (Trajectory(end.id, end.question, end.turns[:n]), end)
        for end in ends
        for n in range(1, len(end.turns) + 1)
    ]
    assert sum(len(end.turns) for end in ends) > 2 * len(ends)
    llm.forget()
    assert carry([prefix for prefix, _ in prefixes]) == [end for _, end in prefixes]


class Lists:
    """Several searches a turn, a second try for what cannot be read, and a first retrieval."""

    stop = ("\n",)
    turns = 4

    def prompt(self, trajectory: Trajectory) -> str:
        return "".join(turn.text + (turn.observation or "") for turn in trajectory.turns)

    def opening(self, question: Question) -> Turn:
        return Turn("", "given", (Search(question.text, ""),))

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        text = completion.text
        kind, _, rest = text.strip().partition(" ")
        if kind == "find":
            return Turn(text, "search", tuple(Search(each, "") for each in rest.split(",")))
        if kind == "stop":
            return Turn(text, "spent")
        if kind == "on":
            return Turn(text, "continue")
        if kind == "say":
            return Turn(text, "answer", answer=rest)
        return Turn(text, "invalid", observation="what?\n")

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        found = [[hit.passage.id for hit in search.hits] for search in turn.searches]
        return f"{len(trajectory.turns)}{found}\n"

    def reasoning(self, turn: Turn) -> str:
        return "because"


def listed(script: list[str], *starts: Trajectory, form: str = "query") -> list[Trajectory]:
    return run_rollout(
        ScriptedLLM(script),
        TableRetriever({"one": [A, B], "two": [B, C]}, default=[C]),
        starts or [start()],
        Lists(),
        k=1,
        form=form,
        turns=0,
        sampling=Sampling(40),
    )


def test_a_turn_may_search_twice_after_a_retrieval_of_the_protocols_own() -> None:
    [end] = listed(["find one,two\n", "mumble\n", "on\n", "say x\n"])
    assert [turn.status for turn in end.turns] == [
        "given", "search", "invalid", "continue", "answer",
    ]  # fmt: skip
    assert Lists().prompt(end) == (
        "0[['c']]\nfind one,two\n1[['a'], ['b']]\nmumble\nwhat?\non\nsay x\n"
    )
    assert (end.stop, end.answer) == ("answered", "x")
    assert [search.sent for search in end.searches] == ["Who?", "one", "two"]


def test_the_dialects_budget_counts_model_calls_and_a_spent_turn_ends_early() -> None:
    [end] = listed(["find one\n"] * 9)
    assert (end.stop, len(end.turns)) == ("budget", 5)
    [end] = listed(["find one\n", "stop\n", "say x\n"])
    assert (end.stop, len(end.turns), end.answer) == ("budget", 3, None)


def test_a_search_beside_others_is_replaced_alone() -> None:
    [end] = listed(["find one,two\n", "say x\n"])
    cut = end.at_search(1, C)
    assert [search.hits[0].passage for search in cut.turns[1].searches] == [C, B]
    [again] = listed(["say y\n"], cut)
    assert again.turns[1].observation == "1[['c'], ['b']]\n"
    assert (again.answer, len(again.searches)) == ("y", 3)
    [first] = listed(["say z\n"], end.at_search(0, A))
    assert first.turns[0].observation == "0[['a']]\n"


def test_the_dialect_says_what_is_reasoning() -> None:
    [end] = listed(["find one\n", "say x\n"], form="question+reasoning+query")
    assert end.searches[1].sent == "Who? [SEP] because [SEP] one"


def test_a_status_that_does_not_exist_is_the_dialects_fault() -> None:
    class Odd(Lists):
        def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
            return Turn(completion.text, "maybe")  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"Odd\.read gave status 'maybe'"):
        run_rollout(
            ScriptedLLM(["a"]), TABLE, [start()], Odd(),
            k=1, form="query", turns=0, sampling=Sampling(4),
        )  # fmt: skip
