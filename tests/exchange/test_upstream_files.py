"""Upstream's step files: written from a run, read back, and joined into the run's examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.cli import main
from agentic_r.errors import DataError
from agentic_r.exchange.upstream_files import (
    UNEQUAL,
    SubAnswerLine,
    label_files,
    read_trajectories,
    step_path,
    trajectory_file,
)
from agentic_r.exchange.upstream_labels import convert, join
from agentic_r.io import read_jsonl, write_jsonl
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn, Utility
from agentic_r.utility.labelled import Labelled, SubAnswer
from agentic_r.utility.select import UPSTREAM, select

UNNEEDED_COUNT = "candidates whose correctness was not needed, written as 0"
OPEN_COUNT = "searches of which upstream's rule wants to know more than was measured"
FAILED_COUNT = "candidates whose correctness failed, left out"
UNJUDGED_COUNT = "candidates whose relevance failed, left out"

QUESTION = Question("train_3", "Where was the maker of Ulm born?", ("Bonn",), "hotpotqa", {"a": 1})
HITS = (
    Hit(Passage("p1", "She was born in Bonn.", '"Ann"'), 0.0),
    Hit(Passage("p2", "no title"), 0.0),
)


def searched(query: str, thought: str = "hm") -> Turn:
    text = f"<think>{thought}</think> <search>{query}</search>"
    return Turn(
        text,
        "search",
        (Search(query, f"{QUESTION.text} [SEP] {query}", HITS),),
        observation=SearchR1().block(HITS),
    )


ANSWERED = Trajectory(
    "t0",
    QUESTION,
    (
        searched("maker of Ulm"),
        searched("where was Ann born"),
        Turn("<answer>Bonn</answer>", "answer", answer="Bonn"),
    ),
    "answered",
)


def write_trajectories(path: Path, trajectories: Sequence[Trajectory]) -> None:
    path.write_bytes(trajectory_file(trajectories))


def write_labels(
    folder: Path, dataset: str, trajectories: Sequence[Trajectory], labelled: Sequence[Labelled]
) -> dict[str, int]:
    files, counts = label_files(trajectories, labelled)
    for step, data in files.items():
        path = folder / step_path(step, dataset)
        path.parent.mkdir()
        path.write_bytes(data)
    return counts


def utilities(search: int, correct: int = 4) -> list[Utility]:
    """Candidate `correct` is right and most relevant; exhaustive."""
    sent = ANSWERED.searches[search].sent
    return [
        Utility(
            "t0",
            search,
            sent,
            f"p{n}",
            n,
            float(90 if n == correct else n),
            float(n == correct),
            "measured",
        )
        for n in range(20)
    ]


def test_trajectories_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "hotpotqa.json"
    write_trajectories(path, [ANSWERED])
    raw = json.loads(path.read_text())[0]
    assert raw["output"]["metric_score"]["em"] == 1.0 and raw["output"]["retrieved_times"] == 2
    assert raw["output"]["finish_reason"] == "Finished" and raw["output"]["pred"] == "Bonn"
    assert list(raw["output"]["retrieval_results"]) == ["0", "1"]
    [found] = read_trajectories(path).trajectories
    assert found.question == QUESTION and found.stop == "answered" and found.answer == "Bonn"
    assert [turn.text.strip() for turn in found.turns] == [turn.text for turn in ANSWERED.turns]
    assert found.searches == ANSWERED.searches
    assert [t.observation for t in found.turns] == [t.observation for t in ANSWERED.turns]


@pytest.mark.parametrize(
    ("turns", "stop", "reason", "pred"),
    [
        ((searched("a"),), "budget", "Reach max retrieval number", "No valid answer found"),
        (
            (Turn("I know it", "invalid"),),
            "invalid",
            "Normal finish without answer pattern",
            "I know it",
        ),
    ],
)
def test_other_ends(
    tmp_path: Path, turns: tuple[Turn, ...], stop: str, reason: str, pred: str
) -> None:
    path = tmp_path / "x.json"
    write_trajectories(path, [Trajectory("t", QUESTION, turns, stop)])  # type: ignore[arg-type]
    output = json.loads(path.read_text())[0]["output"]
    assert (output["finish_reason"], output["pred"]) == (reason, pred)
    [found] = read_trajectories(path, "d").trajectories
    assert found.stop in (stop, "invalid") and found.answer is None
    assert len(found.searches) == sum(len(turn.searches) for turn in turns)


def test_a_trajectory_that_does_not_fit_its_results_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_trajectories(path, [ANSWERED, ANSWERED])
    items = json.loads(path.read_text())
    del items[0]["output"]["retrieval_results"]["1"]
    items[1]["output"]["retrieval_results"]["2"] = items[1]["output"]["retrieval_results"]["0"]
    path.write_text(json.dumps(items))
    assert read_trajectories(path) == ([], {UNEQUAL: 2})


def test_what_is_no_trajectory_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"id": "train_1"}]')
    with pytest.raises(DataError, match=r"expected a JSON list .* output\.prompt"):
        read_trajectories(path)
    with pytest.raises(DataError, match=r"none.json"):
        read_trajectories(tmp_path / "none.json")


def test_ids_are_numbers_too_and_searches_must_be(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_trajectories(path, [ANSWERED])
    [item] = json.loads(path.read_text())
    path.write_text(json.dumps([{**item, "id": 5}]))
    assert read_trajectories(path).trajectories[0].question.id == "5"
    results = item["output"]["retrieval_results"]
    for key in ("a", "\u00b2"):
        item["output"]["retrieval_results"] = {key: results["0"]}
        path.write_text(json.dumps([item]))
        with pytest.raises(DataError, match=rf"x.json: question 'train_3': got the key '{key}'"):
            read_trajectories(path)


def labelled() -> Labelled:
    return Labelled(
        "hotpotqa",
        "train_3",
        tuple(utilities(0)) + tuple(utilities(1, 7)),
        (SubAnswer("t0", 0, "Ann"), SubAnswer("t0", 1, None)),
    )


def test_our_labels_give_upstream_our_examples(tmp_path: Path) -> None:
    """Written as upstream's files and joined as upstream does: the run's own examples."""
    counts = write_labels(tmp_path, "hotpotqa", [ANSWERED], [labelled()])
    assert counts == {"searches written": 2}
    [line] = read_jsonl(tmp_path / "trajectory_subanswer" / "hotpotqa.jsonl", SubAnswerLine)
    said = [(each.query, each.subanswer) for each in line.query_subanswer_list]
    assert said == [("maker of Ulm", "Ann"), ("where was Ann born", "Not Sure")]
    item = json.loads((tmp_path / "passage_candidates" / "hotpotqa.json").read_text())[0]
    assert item["trajectory"][1]["round_index"] == 2
    assert item["trajectory"][1]["reasoning_context"].endswith("</search>")
    assert "<information>" in item["trajectory"][1]["reasoning_context"]
    assert "retrieval_results" not in item["output"]
    files = [
        tmp_path / "passage_candidates" / "hotpotqa.json",
        tmp_path / "local_utility" / "hotpotqa.jsonl",
        tmp_path / "global_utility" / "hotpotqa.jsonl",
    ]
    made = convert(join(*files), "hotpotqa", UPSTREAM)
    ours, _ = select("hotpotqa", "train_3", labelled().utilities)
    assert [each.positives for each in made.examples] == [each.positives for each in ours]
    assert [each.query for each in made.examples] == [each.query for each in ours]
    assert made.rows[1].history_queries == ("maker of Ulm",)


def test_what_the_default_rule_left_open_for_upstreams_is_counted(tmp_path: Path) -> None:
    """A passage that was read before is never tried by the default, always by upstream's rule."""
    rows = [msgspec.structs.replace(row, read=row.rank == 4) for row in utilities(0)]
    rows[4] = msgspec.structs.replace(rows[4], correctness=None, why="not needed")
    counts = write_labels(
        tmp_path, "hotpotqa", [ANSWERED], [Labelled("hotpotqa", "train_3", tuple(rows))]
    )
    assert counts[OPEN_COUNT] == 1


def test_the_signal_that_failed_is_named(tmp_path: Path) -> None:
    rows = utilities(0)
    rows[1] = msgspec.structs.replace(rows[1], relevance=None, correctness=None, why="failed: x")
    rows[2] = msgspec.structs.replace(rows[2], correctness=None, why="failed: y")
    rows[3] = msgspec.structs.replace(rows[3], correctness=None, why="failed: y")
    counts = write_labels(tmp_path, "d", [ANSWERED], [Labelled("d", "train_3", tuple(rows))])
    assert (counts[UNJUDGED_COUNT], counts[FAILED_COUNT]) == (1, 2)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 40.0, 60.0, 80.0, 100.0]), st.booleans()),
        min_size=20,
        max_size=20,
    )
)
def test_lazy_labels_give_upstream_our_examples_too(
    tmp_path_factory: pytest.TempPathFactory, signals: list[tuple[float, bool]]
) -> None:
    """What was not needed is written as 0, and neither positives nor pool depend on it."""
    folder = tmp_path_factory.mktemp("lazy")
    whole = [
        Utility("t0", 0, ANSWERED.searches[0].sent, f"p{n}", n, relevance, float(right), "measured")
        for n, (relevance, right) in enumerate(signals)
    ]
    lazy = [msgspec.structs.replace(row, correctness=None, why="not needed") for row in whole]
    while needed := UPSTREAM.verdict(lazy).needed:
        for rank in needed:
            lazy[rank] = whole[rank]
    row = Labelled("d", "train_3", tuple(lazy))
    counts = write_labels(folder, "d", [ANSWERED], [row])
    assert counts.get(UNNEEDED_COUNT, 0) == sum(each.correctness is None for each in lazy)
    assert OPEN_COUNT not in counts
    files = [
        folder / "passage_candidates" / "d.json",
        folder / "local_utility" / "d.jsonl",
        folder / "global_utility" / "d.jsonl",
    ]
    made = convert(join(*files), "d", UPSTREAM)
    ours, _ = select("d", "train_3", whole)
    assert [each.positives for each in made.examples] == [each.positives for each in ours]
    [(_, rows)] = join(*files).searches
    assert set(UPSTREAM.verdict(rows).pool) == set(UPSTREAM.verdict(whole).pool)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "iteration-1", tmp_path / "training_data"
    for part in ("rollouts", "labels"):
        (run / part).mkdir(parents=True)

    write_jsonl(run / "rollouts" / "trajectories.jsonl", [ANSWERED])
    write_jsonl(run / "labels" / "labels.jsonl", [labelled()])
    assert main(["convert", "upstream-files", str(run), str(out)]) == 0
    said = capsys.readouterr().out
    assert "hotpotqa: 1 trajectory\n" in said and "2 searches written" in said
    assert " 0 " not in said
    back = tmp_path / "trajectories.jsonl"
    source = out / "trajectory" / "hotpotqa.json"
    assert main(["convert", "upstream-trajectories", str(source), str(back)]) == 0
    assert f"{back}: 1 trajectory\n" in capsys.readouterr().out
    assert read_jsonl(back, Trajectory)[0].question == QUESTION


def test_an_agent_is_a_level_and_another_iteration_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "training_data"
    other = msgspec.structs.replace(labelled(), utilities=tuple(utilities(1, 3)))
    for number, row in enumerate((labelled(), other), start=1):
        run = tmp_path / f"iteration-{number}"
        write_jsonl(run / "rollouts" / "trajectories.jsonl", [ANSWERED])
        write_jsonl(run / "labels" / "labels.jsonl", [row])
    words = ["convert", "upstream-files", str(tmp_path / "iteration-1"), str(out)]
    again = [*words[:2], str(tmp_path / "iteration-2"), str(out)]
    assert main([*words, "--agent", "ppo"]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.json*")}
    assert {str(path.relative_to(out)) for path in before} == {
        "trajectory/ppo/hotpotqa.json",
        "passage_candidates/ppo/hotpotqa.json",
        "trajectory_subanswer/ppo/hotpotqa.jsonl",
        "local_utility/ppo/hotpotqa.jsonl",
        "global_utility/ppo/hotpotqa.jsonl",
    }
    assert main([*words, "--agent", "ppo"]) == 0  # the same files again do no harm
    (out / "trajectory" / "ppo" / "hotpotqa.json").unlink()
    capsys.readouterr()
    assert main([*again, "--agent", "ppo"]) == 1
    said = capsys.readouterr()
    assert "ppo/hotpotqa.json: got a file that is there with other content" in said.err
    assert "nothing was written: name another folder or --agent" in said.err and not said.out
    assert not (out / "trajectory" / "ppo" / "hotpotqa.json").exists()
    assert all(path.read_bytes() == data for path, data in before.items() if path.exists())
    assert main([*again, "--agent", "second"]) == 0
    assert main(again) == 0 and (out / "local_utility" / "hotpotqa.jsonl").is_file()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/", "a/"])
def test_an_agent_is_one_folder(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "upstream-files", str(tmp_path), str(tmp_path), "--agent", name]) == 2
    assert f"--agent: got {name!r}, expected the name of one folder" in capsys.readouterr().err


def test_no_usable_trajectory_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "x.json", tmp_path / "t.jsonl"
    write_trajectories(source, [ANSWERED])
    items = json.loads(source.read_text())
    del items[0]["output"]["retrieval_results"]["1"]
    source.write_text(json.dumps(items))
    assert main(["convert", "upstream-trajectories", str(source), str(target)]) == 1
    assert "no usable trajectory (1 trajectory with another number" in capsys.readouterr().err
    assert not target.exists()
    assert main(["convert", "upstream-trajectories", str(source), str(source)]) == 2


def test_what_is_not_labelled_and_a_file_for_a_folder_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "iteration-1", tmp_path / "file"
    out.write_text("mine")
    write_jsonl(run / "rollouts" / "trajectories.jsonl", [ANSWERED])
    words = ["convert", "upstream-files", str(run), str(out)]
    assert main(words) == 1
    assert "label it first: agentic-r label" in capsys.readouterr().err
    write_jsonl(run / "labels" / "labels.jsonl", [labelled()])
    assert main(words) == 1
    assert "a file is where its folder should be; name another" in capsys.readouterr().err
    assert out.read_text() == "mine"
