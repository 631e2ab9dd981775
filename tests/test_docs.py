"""The documentation is true: its code runs, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import agentic_r as ar
from agentic_r.config import load_config
from agentic_r.data.questions import hops
from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.evaluation.report import Report
from agentic_r.testing import OracleReader
from agentic_r.testing.server import Server, build_parser
from agentic_r.types import Example, Trajectory, Utility
from agentic_r.utility.labelled import Labelled
from agentic_r.world import Sizes, generate

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "agentic_r"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```", re.DOTALL)
NOT_RUN = re.compile(r"not run: \w+")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

STAND_INS = {
    '"intfloat/e5-base-v2"': '"all-MiniLM-L6-v2"',
    '"Qwen/Qwen2.5-7B"': "reader",
    '"http://localhost:8001/v1"': "url",
    "500, 500": "12, 6",
}
"""What README's ten lines name and a test does not have -> what stands in for it."""


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    """Return (mark above it, text) of a page's code blocks of one kind."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(m["mark"] or "", m["body"]) for m in found if m["kind"] == kind]


class Mute:
    """A model for a server that only chats."""

    batch = 1

    def generate(self, prompts: Sequence[str], sampling: ar.Sampling) -> list[ar.Completion]:
        raise ar.LLMError("only chats are served")


@pytest.fixture
def judge_url() -> Iterator[str]:
    options = build_parser().parse_args([])
    with Server(Mute(), "grader", options) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.url
        running.shutdown()
        thread.join()


def write_small_world(folder: Path) -> list[ar.Question]:
    """Write the files that README names: 18 questions, their passages and some others."""
    world = generate(0, Sizes(9, 9, 9, 9, 9, train_questions=60, dev_questions=1, test_questions=1))
    questions = [q for q in world.questions["train"] if len(hops(q)) == 1][:18]
    gold = {hop.passage_id for question in questions for hop in hops(question)}
    others = [p for p in world.corpus if p.id not in gold][: 36 - len(gold)]
    passages = [*(world.corpus.get(id) for id in sorted(gold)), *others]
    rows = {
        "corpus.jsonl": [{"id": p.id, "title": p.title, "text": p.text} for p in passages],
        "hotpotqa_train.jsonl": [
            {"id": q.id, "question": q.text, "golden_answers": q.answers, "metadata": q.metadata}
            for q in questions
        ],
    }
    for name, lines in rows.items():
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")
    return questions


@pytest.mark.parametrize("name", [n for n in NAMES if blocks(ROOT / n, "python")])
def test_python_blocks_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = OracleReader(write_small_world(tmp_path))
    namespace: dict[str, Any] = {"reader": reader, "url": judge_url, "__name__": "block"}
    for number, (mark, body) in enumerate(blocks(ROOT / name, "python"), 1):
        if mark.startswith("not run"):
            assert NOT_RUN.match(mark), f"{name}: block {number} does not say why it is not run"
            continue
        for said, meant in STAND_INS.items():
            body = body.replace(said, meant)
        exec(compile(body, f"{name}, block {number}", "exec"), namespace)
    if name == "README.md":
        assert len(namespace["labels"].rows) == 12
        assert namespace["better"].encoder is not namespace["retriever"].encoder


def test_extending_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "block"}
    for _, body in blocks(ROOT / "docs" / "extend.md", "python"):
        exec(compile(body, "extend.md", "exec"), namespace)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Ada Bo ['p2', 'p1']"
    assert "positives=('p1',)" in said[1]
    assert "positives=('p1',)" in said[2]
    assert said[3] == "Who"
    assert said[4] == "Ada Bo"


OVERRIDES = {"multihop-wiki": [("data.corpus", "c.jsonl"), ("data.questions", "q.jsonl")]}
"""What a config leaves to the command line."""


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_configs_load(path: Path) -> None:
    config = load_config(path, [("seed", "7"), *OVERRIDES.get(path.stem, [])])
    assert config.name == path.stem
    assert config.seed == 7


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, f"{name} links to {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        page.name for page in PAGES if page.parent.name == "docs" and page.name not in readme
    ]
    assert missing == []


def tree() -> list[str]:
    """Return the paths that README's tree names; folders end in a slash."""
    text = next(b for m, b in blocks(ROOT / "README.md", "") if "src/agentic_r/" in b)
    paths: list[str] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        name = line.split()[0]
        above = [each for each in above if each[0] < indent]
        paths.append("".join(part for _, part in above) + name)
        if name.endswith("/"):
            above.append((indent, name))
    return paths


def test_the_tree_names_every_file_and_no_other() -> None:
    named = tree()
    assert len(named) == len(set(named))
    modules = [f"src/agentic_r/{p.relative_to(SOURCE)}" for p in SOURCE.rglob("*.py")]
    assert sorted(p for p in named if p.endswith(".py")) == sorted(modules)
    assert [p for p in named if not (ROOT / p).exists() and "checkpoints" not in p] == []
    assert all(line.split()[1:] or "__init__" in line for line in tree_lines())


def tree_lines() -> list[str]:
    """Return the lines of README's tree."""
    text = next(b for m, b in blocks(ROOT / "README.md", "") if "src/agentic_r/" in b)
    return text.splitlines()


FORBIDDEN = re.compile(
    r"(?<![\w.~])/(?:work|home|root|tmp|mnt|Users|opt)/\w"
    r"|pypi\.org|pythonhosted|huggingface\.co|download\.pytorch\.org|\bissues show\b"
)


def test_nothing_names_a_machine_or_a_registry() -> None:
    folders = ("docs", "configs", "examples", "benchmarks", "tools", "src", ".ci")
    kinds = ("*.py", "*.md", "*.toml", "*.txt", "*.jinja", "run")
    found = [p for folder in folders for kind in kinds for p in (ROOT / folder).rglob(kind)]
    found += [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "constraints.txt", ROOT / "Makefile"]
    bad = []
    for path in found:
        match = FORBIDDEN.search(path.read_text(encoding="utf-8"))
        if match:
            bad.append(f"{path.relative_to(ROOT)}: {match.group()}")
    assert bad == []


def reference() -> ModuleType:
    """Return tools/reference.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("--a", {"nargs": 2, "metavar": "X"}, "[--a X X]"),
        ("--a", {"nargs": 2, "metavar": ("X", "Y")}, "[--a X Y]"),
        ("--a", {"nargs": 1, "required": True}, "--a VALUE"),
        ("--a", {"nargs": 2, "choices": ("u", "v")}, "[--a u|v u|v]"),
        ("--a", {"nargs": "+", "metavar": ("X", "Y")}, "[--a X [Y ...]]"),
        ("--a", {"action": "store_true"}, "[--a]"),
        ("a", {"nargs": "+", "metavar": "X"}, "X [X ...]"),
        ("a", {"nargs": 2}, "a a"),
        ("a", {}, "a"),
    ],
)
def test_usage_shows_every_value(name: str, options: dict[str, Any], said: str) -> None:
    action = argparse.ArgumentParser().add_argument(name, **options)
    assert reference()._written(action) == said


def test_pages_made_from_the_code_are_up_to_date() -> None:
    for path, text in reference().pages().items():
        said = path.read_text(encoding="utf-8")
        assert said == text, f"{path.name} is out of date, run: python tools/reference.py"


def test_rows_of_the_formats_page_are_rows() -> None:
    types = {t.__name__: t for t in (Trajectory, Utility, Example, Labelled, Record, Row)}
    marked = [(m, b) for m, b in blocks(ROOT / "docs" / "formats.md", "json") if m]
    assert {mark.removeprefix("rows: ") for mark, _ in marked} == {*types, "CurvePoint", "DevPoint"}
    for mark, body in marked:
        type_ = types.get(mark.removeprefix("rows: "))
        if type_ is None:
            from agentic_r import learning

            type_ = getattr(learning, mark.removeprefix("rows: "))
        for line in body.splitlines():
            row = msgspec.json.decode(line, type=type_)
            # Every column is shown, in the order in which it is written.
            assert list(json.loads(line)) == list(json.loads(msgspec.json.encode(row)))


def test_data_of_the_formats_page_can_be_read(tmp_path: Path) -> None:
    corpus, questions = [b for m, b in blocks(ROOT / "docs" / "formats.md", "json") if not m]
    (tmp_path / "corpus.jsonl").write_text(corpus, encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(questions, encoding="utf-8")
    assert [p.title for p in ar.Corpus.load(tmp_path / "corpus.jsonl")] == [
        "Kraus House",
        "Merrimack River",
    ]
    question = ar.load_questions(tmp_path / "questions.jsonl")[0]
    assert [hop.question for hop in hops(question)][1] == (
        "where does the Merrimack River start in Missouri"
    )


def test_every_key_of_report_json_is_described() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"`(\w+)`", page.partition("## report.json")[2]))
    assert set(Report.__struct_fields__) <= keys


def test_the_method_page_names_what_there_is() -> None:
    rows = 0
    for line in (ROOT / "docs" / "method.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or ".py`" not in line:
            continue
        rows += 1
        _, _, functions, tests, _ = line.split("|")
        path = None
        for name in re.findall(r"`([^`]+)`", functions):
            if name.endswith(".py"):
                path = SOURCE / name
                assert path.is_file(), name
            else:
                assert path is not None
                nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                assert name.split(".")[-1] in {getattr(node, "name", "") for node in nodes}, name
        for name in re.findall(r"`([^`]+)`", tests):
            assert (ROOT / "tests" / name).is_file(), name
    assert rows > 10


@pytest.mark.parametrize("marker", ["quickstart-table", "measured"])
def test_the_readme_keeps_its_markers(marker: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    inside = text.partition(f"<!-- {marker} -->")[2].partition(f"<!-- /{marker} -->")[0]
    assert inside.strip()


def test_every_test_that_a_page_names_is_there() -> None:
    named = {
        each
        for page in (ROOT / "docs").glob("*.md")
        for each in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8"))
    }
    assert len(named) > 30
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), f"{path}::{name}"
