"""Bad input gives one line and exit code 1 or 2; `--dry-run` prints what would be run."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentic_r
from agentic_r.cli import main
from agentic_r.cli.settings import settings_apart
from agentic_r.config import load_config
from agentic_r.stage import Run
from tests.retriever.conftest import NAMES, make_checkpoint

ROOT = Path(__file__).parents[2]
SOURCE = str(Path(agentic_r.__file__).parents[1])

Refused = Callable[..., str]


def passage(number: int) -> dict[str, Any]:
    name = NAMES[number % len(NAMES)]
    return {"id": f"p{number}", "contents": f'"{name}"\n{name} was born in the city of {number}'}


def question(number: int) -> dict[str, Any]:
    asked = f"where was {NAMES[number % len(NAMES)]} born in {number}?"
    hop = {"question": asked, "answer": str(number), "passage_id": f"p{number}"}
    return {
        "id": f"q{number}",
        "question": asked,
        "golden_answers": [str(number)],
        "metadata": {"hops": [hop]},
    }


def write_lines(path: Path, lines: list[Any]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def config(tmp_path: Path, encoder: Path) -> Path:
    """A config of files that are all right."""
    corpus = write_lines(tmp_path / "corpus.jsonl", [passage(n) for n in range(40)])
    questions = write_lines(tmp_path / "questions.jsonl", [question(n) for n in range(20)])
    path = tmp_path / "run.toml"
    path.write_text(
        f'name = "run"\nruns = "{tmp_path / "runs"}"\n'
        f'[data]\nsource = "files"\ncorpus = "{corpus}"\nquestions = "{questions}"\n'
        f'[retriever]\nbase = "{encoder}"\nmax_length = 48\n'
        '[agent]\nmodel = "oracle-reader"\n'
    )
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail: one line, the right exit code, no traceback."""

    def run(*arguments: object, code: int = 1) -> str:
        capsys.readouterr()
        try:
            found: object = main([str(argument) for argument in arguments])
        except SystemExit as end:
            found = end.code
        said = capsys.readouterr().err
        assert found == code, said
        assert said.startswith("agentic-r"), said
        assert said.count("\n") == 1, said
        assert said.endswith("\n")
        assert "Traceback" not in said
        return said

    return run


def test_a_good_config_is_indexed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["index", str(config)]) == 0
        assert "40 passages in" in capsys.readouterr().out
    assert main(["status", str(config.parent / "runs" / "run")]) == 0
    assert "base/index" in capsys.readouterr().out


def test_an_index_needs_a_corpus_alone(
    config: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    nothing_else = ["--data.questions", "", "--agent.model", "http://localhost:1/v1"]
    assert main(["index", str(config), *nothing_else]) == 0
    assert main(["search", str(config), "passage 3", *nothing_else]) == 0
    assert "untouched retriever" in capsys.readouterr().out
    assert main(["index", str(config), "--dry-run", *nothing_else]) == 0
    assert "data.questions: got nothing" in refused("loop", config, *nothing_else, code=2)
    assert "data.questions: got nothing" in refused(
        "loop", config, "--dry-run", *nothing_else, code=2
    )


def test_questions_may_come_after_the_index(
    config: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    assert main(["index", str(config), "--data.questions", ""]) == 0
    made = config.parent / "runs" / "run" / "base" / "index" / "manifest.json"
    before = made.read_bytes()
    assert main(["rollout", str(config)]) == 0
    assert made.read_bytes() == before
    said = refused("rollout", config, "--retriever.k", "3")
    assert "retriever.k was 2, now 3" in said


def test_another_corpus_after_the_index_is_refused(config: Path, refused: Refused) -> None:
    assert main(["index", str(config), "--data.questions", ""]) == 0
    other = write_lines(config.parent / "other.jsonl", [passage(n) for n in range(45)])
    said = refused("rollout", config, "--data.corpus", other)
    assert "corpus was" in said


@pytest.mark.parametrize("key", ["corpus", "questions", "test"])
def test_a_missing_file(config: Path, refused: Refused, key: str) -> None:
    said = refused("loop", config, f"--data.{key}", "nowhere.jsonl")
    assert "nowhere.jsonl: there is no such file" in said


BAD_PASSAGES = [
    '{"id": "p1", "contents": ',
    "not JSON",
    "[1, 2]",
    "7",
    "null",
    '{"id": "p1"}',
    '{"contents": "text without an id"}',
    '{"id": {"a": 1}, "contents": "text"}',
    '{"id": "p1", "contents": 3}',
    '{"id": "p1", "title": "a title alone"}',
    "[" * 5000,
]


@pytest.mark.parametrize("line", BAD_PASSAGES, ids=range(len(BAD_PASSAGES)))
def test_a_malformed_corpus_line(config: Path, refused: Refused, line: str) -> None:
    path = write_lines(config.parent / "bad.jsonl", [passage(0), line, passage(2)])
    said = refused("index", config, "--data.corpus", path)
    assert f"{path}:2: got " in said
    assert "expected " in said


BAD_QUESTIONS = [
    "not JSON",
    '{"id": "q1", "question": "who?"}',
    '{"id": "q1", "question": "who?", "golden_answers": []}',
    '{"id": "q1", "question": "who?", "golden_answers": [" "]}',
    '{"id": "q1", "question": "who?", "golden_answers": "one"}',
    '{"id": "q1", "question": "", "golden_answers": ["one"]}',
    '{"id": "q1", "golden_answers": ["one"]}',
    '{"id": "q1", "question": "who?", "golden_answers": ["one"], "metadata": []}',
]


@pytest.mark.parametrize("line", BAD_QUESTIONS, ids=range(len(BAD_QUESTIONS)))
def test_a_malformed_question_line(config: Path, refused: Refused, line: str) -> None:
    path = write_lines(config.parent / "bad.jsonl", [question(0), line])
    assert f"{path}:2: got " in refused("loop", config, "--data.questions", path)


def test_duplicate_ids(config: Path, refused: Refused) -> None:
    corpus = write_lines(config.parent / "bad.jsonl", [passage(n) for n in (0, 1, 2, 1)])
    said = refused("index", config, "--data.corpus", corpus)
    assert f"{corpus}:4" in said
    assert f"{corpus}:2 has too" in said
    questions = write_lines(config.parent / "worse.jsonl", [question(n) for n in (5, 5)])
    said = refused("loop", config, "--data.questions", questions)
    assert f"{questions}:2: got id 'q5', which line 1 has too" in said


def test_an_empty_corpus_and_no_questions(config: Path, refused: Refused) -> None:
    empty = write_lines(config.parent / "empty.jsonl", [])
    assert str(empty) in refused("index", config, "--data.corpus", empty)
    assert str(empty) in refused("loop", config, "--data.questions", empty)
    few = write_lines(config.parent / "few.jsonl", [question(0)])
    assert "leave none for" in refused("loop", config, "--data.questions", few)


def test_a_corpus_that_lacks_a_gold_passage(config: Path, refused: Refused) -> None:
    corpus = write_lines(config.parent / "other.jsonl", [passage(n) for n in range(30, 60)])
    assert "names passage 'p" in refused("loop", config, "--data.corpus", corpus)


def test_a_file_that_is_not_text(config: Path, refused: Refused) -> None:
    path = config.parent / "corpus.jsonl.gz"
    path.write_bytes(b"\x1f\x8bnot gzip at all")
    assert f"{path}: cannot be read" in refused("index", config, "--data.corpus", path)
    path = config.parent / "latin.jsonl"
    path.write_bytes(b'{"id": "1", "contents": "caf\xe9"}\n')
    assert f"{path}:1: got" in refused("index", config, "--data.corpus", path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (["--retriever.kk", "3"], "did you mean retriever.k?"),
        (["--retriver.k", "3"], "did you mean retriever.k?"),
        (["--retriever.k", "many"], 'retriever.k: got "many", expected an integer of at least 1'),
        (["--retriever.k", "0"], "retriever.k: got 0, expected an integer of at least 1"),
        (["--retriever.k", "2.5"], "retriever.k: got 2.5, expected an integer"),
        (["--retriever.input", "both"], 'expected one of "question+query", "query"'),
        (["--utility.exhaustive", "perhaps"], "expected true or false"),
        (["--evaluation.ks", "[1, 0]"], "expected a list of integers"),
        (["--utility.judge", "someone"], '"likelihood", "offline" or http://...'),
        (["--retriever.k", "--seed", "3"], "--retriever.k has no value"),
        (["--name", "a/b"], "expected a string of letters"),
        (["--retriever", "3"], "retriever is a table"),
        (["--retriever.k"], "--retriever.k has no value"),
        (["retriever.k", "3"], "expected a setting such as --retriever.k 3"),
        (["--data.source", "files", "--data.corpus", ""], "data.corpus: got nothing"),
        (["--utility.candidates", "10"], "expected more than utility.negatives (15)"),
        (["--utility.judge_prompt_file", "x"], "reads no prompt"),
        (["--utility.subanswer_prompt_file", "x"], '"hops", which asks no model'),
        (["--utility.judge_price", "[a]"], "expected a list of two numbers"),
        (["--fork", "x", "--nonsense=1"], "there is no setting nonsense"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_bad_setting(config: Path, refused: Refused, override: list[str], expected: str) -> None:
    assert expected in refused("loop", config, *override, code=2)
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed = 1\n[retriever]\nkk = 3\n", "there is no setting retriever.kk; did you mean"),
        ("seed = 'one'\n", 'seed: got "one", expected an integer'),
        ("[retrievr]\nk = 3\n", "did you mean retriever"),
        ("seed = \n", "got text that is not TOML"),
        ("retriever = 3\n", "retriever is a table"),
    ],
)
def test_a_bad_config_file(tmp_path: Path, refused: Refused, text: str, expected: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    said = refused("loop", path, code=2)
    assert str(path) in said
    assert expected in said
    assert "there is no such config file" in refused("loop", tmp_path / "no.toml", code=2)
    assert "cannot be read" in refused("loop", tmp_path, code=2)


@pytest.mark.parametrize(
    "arguments",
    [[], ["lop", "x.toml"], ["loop"], ["evaluate", "x.toml", "--split", "train"], ["train", "x"]],
    ids=" ".join,
)
def test_wrong_usage(refused: Refused, arguments: list[str]) -> None:
    said = refused(*arguments, code=2)
    assert "--help" in said
    if arguments[:1] == ["lop"]:
        assert "choose from 'loop'" in said
    if arguments[:1] == ["train"]:
        assert "required: retriever|reranker|agent|tiny-agent" in said


def test_settings_may_stand_before_the_last_words(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(config), "--retriever.k", "2", "Who was born?"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 2
    assert main(["train", str(config), "--dry-run", "--name", "nn", "retriever"]) == 0
    assert 'name = "nn"' in capsys.readouterr().out
    pairs, others = settings_apart(["ask", "c", "--retriever.k=2", "--", "--a.b", "-1"])
    assert pairs == [("retriever.k", "2")] and others == ["ask", "c", "--", "--a.b", "-1"]
    assert settings_apart(["report", "r", "--seed", "3"]) == ([], ["report", "r", "--seed", "3"])


def test_a_step_of_a_changed_run_is_done_in_a_fork(
    config: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    assert main(["rollout", str(config)]) == 0
    changed = ["label", str(config), "--retriever.k", "1", "--utility.negatives", "5"]
    assert "add --fork NAME" in refused(*changed)
    capsys.readouterr()
    assert main([*changed, "--fork", "new"]) == 0
    runs = config.parent / "runs"
    assert f"done: {runs / 'new' / 'iteration-1' / 'labels'}" in capsys.readouterr().out
    one, two = (runs / name / "base" / "index" / "manifest.json" for name in ("run", "new"))
    assert one.read_bytes() == two.read_bytes()


def test_changed_settings_on_resume_name_both_values(config: Path, refused: Refused) -> None:
    assert main(["index", str(config)]) == 0
    said = refused("index", config, "--retriever.k", "3", "--seed", "8")
    assert "retriever.k was 2, now 3" in said
    assert "seed was 0, now 8" in said
    assert "--fork NAME" in said


def test_a_setting_that_never_worked_can_be_corrected(config: Path, refused: Refused) -> None:
    said = refused("index", config, "--retriever.max_length", "500", code=2)
    assert "retriever.max_length: got 500, expected" in said
    assert "nowhere" in refused("index", config, "--retriever.base", "nowhere", code=2)
    assert main(["index", str(config)]) == 0


def test_an_index_of_another_encoder(config: Path, tmp_path: Path, refused: Refused) -> None:
    folder = make_checkpoint(tmp_path / "mine", seed=1)
    assert main(["index", str(config), "--retriever.base", str(folder)]) == 0
    manifest = tmp_path / "runs" / "run" / "base" / "index" / "manifest.json"
    before = json.loads(manifest.read_bytes())["inputs"]["encoder"]
    make_checkpoint(folder, seed=2)  # the same folder, other weights
    said = refused("index", config, "--retriever.base", folder)
    assert f'inputs.encoder was "{before}", now "' in said
    assert "--fork NAME" in said


def test_a_damaged_index(config: Path, refused: Refused) -> None:
    assert main(["index", str(config)]) == 0
    stage = config.parent / "runs" / "run" / "base" / "index"
    largest = max((p for p in stage.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-7])
    said = refused("index", config)
    assert f"{largest} is damaged" in said
    assert f"delete {stage}" in said


def test_another_process_on_the_same_run(config: Path, refused: Refused) -> None:
    loaded = load_config(config)
    with Run.open(Path(loaded.runs) / loaded.name, loaded):
        said = refused("index", config)
    assert f"in use by process {os.getpid()}" in said
    assert main(["index", str(config)]) == 0


def test_an_agent_that_is_down(config: Path, refused: Refused) -> None:
    url = "http://127.0.0.1:9/v1"
    said = refused("loop", config, "--agent.model", url)
    assert f"agent.model: {url}" in said
    assert "check that the server runs" in said


def test_a_judge_that_is_down(config: Path, refused: Refused) -> None:
    url = "http://127.0.0.1:9/v1"
    said = refused("loop", config, "--utility.judge", url)
    assert f"utility.judge: {url}" in said


def test_an_agent_that_is_not_there(config: Path, refused: Refused) -> None:
    said = refused("loop", config, "--agent.model", "./nowhere", code=2)
    assert "agent.model: ./nowhere cannot be loaded" in said
    said = refused("loop", config, "--agent.prompt_file", "nowhere.txt", code=2)
    assert "nowhere.txt" in said


def test_a_full_disk(
    config: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        said = refused("index", config)
    assert "No space left on device" in said
    assert str(tmp_path / "runs") in said
    assert main(["index", str(config)]) == 0


def test_runs_that_are_not_there(config: Path, tmp_path: Path, refused: Refused) -> None:
    assert "is no run" in refused("status", tmp_path / "nowhere")
    assert "no such report" in refused("report", tmp_path / "nowhere")
    assert "is no run" in refused("loop", config, "--fork", "new")
    assert "unrecognized arguments: --seed 3" in refused("status", "x", "--seed", "3", code=2)


def test_an_iteration_that_the_loop_does_not_have(config: Path, refused: Refused) -> None:
    for number in ("9", "0", "-1"):
        said = refused("rollout", config, "--iteration", number, code=2)
        assert f"--iteration: got {number}, expected 1 to 2" in said
    assert not (config.parent / "runs").exists()
    assert "epochs is 0" in refused("train", config, "agent", code=2)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_a_dry_run_prints_toml_that_loads_to_the_same(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--seed", "7", "--retriever.k=3", "--name", "2024-01-01"]
    files = ["--data.corpus", "c.jsonl", "--data.questions", 'q "1".jsonl']
    for given in (files, [*files, *changes]):
        assert main(["loop", str(path), "--dry-run", *given]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert "#   iteration-1/labels\n" in printed.out
        (tmp_path / "printed.toml").write_text(printed.out)
        pairs = [("data.corpus", "c.jsonl"), ("data.questions", 'q "1".jsonl')]
        if given != files:
            pairs += [("seed", "7"), ("retriever.k", "3"), ("name", "2024-01-01")]
        assert load_config(tmp_path / "printed.toml") == load_config(path, pairs)


def test_the_program_itself_exits_with_the_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agentic_r.cli", "loop", str(tmp_path / "no.toml")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("agentic-r: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["qdrant", "milvus"])
def test_an_index_is_published_searched_and_checked(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused, kind: str
) -> None:
    pytest.importorskip({"qdrant": "qdrant_client", "milvus": "pymilvus"}[kind])
    engine = ["--retriever.kind", kind]
    store = [*engine, "--retriever.store.url", str(tmp_path / "store.db")]
    store += ["--retriever.store.name", "mine"]
    assert "retriever.kind: got dense" in refused("index", config, "--publish", code=2)
    assert "retriever.store.url" in refused("index", config, "--publish", *engine, code=2)
    assert main(["index", str(config), "--publish", *store]) == 0
    assert "mine is mine__" in capsys.readouterr().out
    assert "no earlier version" in refused("index", config, "--roll-back", *store, code=2)
    assert main(["index", str(config), "--publish", *store]) == 0
    assert "which it was already" in capsys.readouterr().out
    query = [str(config), f"where was {NAMES[0]} born"]
    assert main(["search", *query]) == 0
    expected = capsys.readouterr().out.splitlines()[1:]
    assert main(["search", *query, *store]) == 0
    found = capsys.readouterr().out.splitlines()
    assert found[0].startswith(kind)
    # Scores and titles: of passages that differ in unknown words alone, any may come first.
    words = [[line.split()[at] for at in (0, 1, -1)] for line in expected[::2]]
    assert [[line.split()[at] for at in (0, 1, -1)] for line in found[1::2]] == words
