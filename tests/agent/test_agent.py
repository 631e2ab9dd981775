"""SearchAgent: chunks, copies, names of models, and a model that is down."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.agent.agent import SearchAgent, open_llm, trajectory_id
from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.remote import RemoteLLM
from agentic_r.config import AgentConfig
from agentic_r.errors import ConfigError, LLMError
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.types import Passage, Question, Trajectory

A, B = Passage("a", "alpha", "A"), Passage("b", "beta", "B")
QUESTIONS = [Question(str(n), f"Who is {n}?", ("x",), "set") for n in range(5)]


def script(prompt: str) -> str:
    if "alpha" in prompt or "beta" in prompt:
        return f"<answer> {'A' if 'alpha' in prompt else 'B'} </answer>"
    return "<search> it </search>"


def agent(**settings: object) -> SearchAgent:
    retriever = TableRetriever({"it": [A, B]}, default=[B])
    return SearchAgent(ScriptedLLM(script), retriever, **settings)  # type: ignore[arg-type]


def test_trajectories_are_handed_out_as_they_end() -> None:
    rows: list[str] = []
    ends = agent(k=1, chunk=2).run(QUESTIONS, on_rows=lambda new: rows.extend(t.id for t in new))
    assert sorted(rows) == [f"set/{n}" for n in range(5)]
    assert [end.question for end in ends] == QUESTIONS
    assert {(end.answer, end.stop) for end in ends} == {("A", "answered")}


def test_what_is_owed_after_a_kill(model_folder: Path) -> None:
    done = {QUESTIONS[n].key for n in (0, 1, 3)}
    assert [q.id for q in agent(chunk=2).owed(QUESTIONS, done)] == ["2", "4"]
    local = SearchAgent(LocalLLM(model_folder, device="cpu"), TableRetriever({}), chunk=2)
    assert [q.id for q in local.owed(QUESTIONS, done)] == ["2", "3", "4"]


def test_a_resumed_local_run_is_the_undisturbed_one(model_folder: Path) -> None:
    """Rows are kept as they end; the torn chunk is run again whole, and comes out the same."""
    questions = [Question(str(n), f"the {n} of bao near {n * n}", ("x",)) for n in range(10)]
    retriever = TableRetriever({}, default=[A, B])

    def made() -> SearchAgent:
        llm = LocalLLM(model_folder, batch=3, device="cpu")
        return SearchAgent(llm, retriever, SearchR1("{question}\n"), max_tokens=30, chunk=4)

    whole = {end.question.key: end for end in made().run(questions)}
    kept: dict[tuple[str, str], Trajectory] = {}

    class Killed(Exception):
        pass

    def keep(rows: list[Trajectory]) -> None:
        kept.update((row.question.key, row) for row in rows if row.question.key not in kept)
        if 5 <= len(kept) < 8:
            raise Killed

    with pytest.raises(Killed):
        made().run(questions, on_rows=keep)
    assert 5 <= len(kept) < 8
    again = made()
    owed = again.owed(questions, kept)
    assert [q.id for q in owed] == [str(n) for n in range(4, 10)]
    for end in again.run(owed):
        assert end == kept.setdefault(end.question.key, end)
    assert kept == whole


def test_using_changes_a_copy() -> None:
    first = agent(k=1)
    other = first.using(TableRetriever({}, default=[B]), k=2, form="question+query")
    assert other.run(QUESTIONS[:1])[0].answer == "B"
    assert other.run(QUESTIONS[:1])[0].searches[0].sent == "Who is 0? [SEP] it"
    assert first.run(QUESTIONS[:1])[0].answer == "A"
    assert (first.k, first.form, other.turns) == (1, "query", first.turns)


def test_continuing_from_another_passage() -> None:
    first = agent(k=1)
    [end] = first.run(QUESTIONS[:1])
    starts = [end.at_search(0, passage, f"{end.id}+{passage.id}") for passage in (A, B)]
    assert [again.answer for again in first.continue_(starts)] == ["A", "B"]


def test_ids_repeat_only_between_data_sets() -> None:
    assert trajectory_id(Question("1", "a", ("b",))) == "1"
    assert trajectory_id(Question("1", "a", ("b",), "nq"), 2) == "nq/1#2"


def test_a_model_that_is_down_is_an_error_and_one_failure_is_not() -> None:
    down = SearchAgent(ScriptedLLM([]), TableRetriever({}))
    with pytest.raises(LLMError, match="all 5 trajectories failed; the first: the script"):
        down.run(QUESTIONS)
    ended = Trajectory("t", QUESTIONS[0], (), "error", "before")
    assert down.continue_([ended, ended]) == [ended, ended]
    shaky = SearchAgent(ScriptedLLM({"Who is 1?": "<answer> x </answer>"}), TableRetriever({}))
    assert [end.stop for end in shaky.run(QUESTIONS[:2])] == ["error", "answered"]


def test_what_was_run_before_does_not_matter(model_folder: Path) -> None:
    llm = LocalLLM(model_folder, batch=2, device="cpu")
    forgotten: list[bool] = []
    llm.forget = lambda: forgotten.append(True)  # type: ignore[method-assign]
    one = SearchAgent(llm, TableRetriever({}), max_tokens=2, turns=1, chunk=2)
    ends = one.run(QUESTIONS)
    one.continue_(ends[:1], forget=False)
    assert len(forgotten) == 3
    assert {end.stop for end in ends} == {"length"}


def test_models_are_found_by_name(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = open_llm(AgentConfig(model="http://127.0.0.1:9", name="m", concurrency=3))
    assert isinstance(remote, RemoteLLM)
    assert (remote.url, remote.model) == ("http://127.0.0.1:9/v1", "m")
    assert isinstance(open_llm(AgentConfig(model=str(model_folder), batch=3)), LocalLLM)
    with pytest.raises(ConfigError, match="OracleReader"):
        open_llm(AgentConfig(model="oracle-reader"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_llm(AgentConfig(model=str(model_folder / "nothing")))
    empty = model_folder / "empty"
    monkeypatch.setattr("agentic_r.agent.agent.resources.files", lambda name: empty)
    with pytest.raises(ConfigError, match="the packaged checkpoint is missing"):
        open_llm(AgentConfig())


def test_a_checkpoint_brings_its_own_prompt(tmp_path: Path, model_folder: Path) -> None:
    for file in model_folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "prompt.txt").write_text("Q {question}\n", encoding="utf-8")
    start = Trajectory("t", QUESTIONS[0])
    made = SearchAgent.from_config(AgentConfig(model=str(tmp_path)), TableRetriever({}), k=2)
    assert made.dialect.prompt(start) == "Q Who is 0?\n"
    assert (made.k, made.turns, made.chunk) == (2, 5, 128)
    own = tmp_path / "own.txt"
    own.write_text("Own {question}", encoding="utf-8")
    config = AgentConfig(model=str(tmp_path), prompt_file=str(own))
    made = SearchAgent.from_config(config, TableRetriever({}))
    assert made.dialect.prompt(start) == "Own Who is 0?"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="k=0"):
        agent(k=0)
    with pytest.raises(ConfigError, match="'both', expected"):
        agent(form="both")
