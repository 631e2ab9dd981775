"""How the package is built: imports point down, the light part is light, nothing is too long."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import agentic_r

SOURCE = Path(agentic_r.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

WORDS = (
    "types",
    "protocols",
    "errors",
    "io",
    "packed",
    "metrics",
    "config",
    "settings",
    "waiting",
)
LAYERS: tuple[tuple[str, ...], ...] = (
    WORDS,
    ("data",),
    ("world", "testing", "training"),
    ("retriever", "agent"),
    ("utility", "evaluation", "serve"),
    ("manifest", "exchange"),
    ("changes",),
    ("stage",),
    ("parts", "finding", "given"),
    ("steps",),
    ("dev", "learning", "practice", "judging", "verl"),
    ("reranking", "taught"),
    ("loop", "grid"),
    ("summary", "api", "served"),
    ("publishing",),
    ("converting",),
    ("cli", "__init__"),
)
"""From the bottom up; what stands side by side does not import each other, the words apart."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

LAZY = {("testing.server", "agent"), ("testing.grader", "agent")}
"""A real server has to open a model: allowed inside functions alone."""

HEAVY = (
    "torch",
    "transformers",
    "faiss",
    "jinja2",
    "bm25s",
    "httpx",
    "matplotlib",
    "tokenizers",
    "uvicorn",
    "mcp",
    "chonkie",
)


class Import(NamedTuple):
    module: str
    top: bool
    typing: bool


def name_of(path: Path) -> str:
    """The module's dotted name inside the package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def part_of(module: str) -> str:
    """The layer's name of a module: its folder, or itself where it lies at the top."""
    return module.partition(".")[0]


def imports(path: Path) -> list[Import]:
    """Every import of this package that a module makes, and where."""
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), True, False))


def _walk(node: ast.AST, top: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import on line {child.lineno}"
            yield from _found(child.module or "", [a.name for a in child.names], top, typing)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield from _found(alias.name, [], top, typing)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(child, top and not inside, typing or guarded)


def _found(module: str, names: list[str], top: bool, typing: bool) -> Iterator[Import]:
    head, _, rest = module.partition(".")
    if head != "agentic_r":
        return
    if rest:
        yield Import(rest, top, typing)
    else:
        yield from (Import(name, top, typing) for name in names)


@cache
def modules() -> dict[str, list[Import]]:
    return {name_of(path): imports(path) for path in MODULES}


def test_every_module_has_a_layer() -> None:
    assert {part_of(name) for name in modules()} <= set(LEVEL)
    assert len(modules()) > 50


@pytest.mark.parametrize("module", [name_of(path) for path in MODULES])
def test_imports_point_down(module: str) -> None:
    own = part_of(module)
    for found in modules()[module]:
        other = part_of(found.module)
        if other == own or (own in WORDS and other in WORDS):
            continue
        if (module, other) in LAZY and not found.top:
            continue
        assert LEVEL[other] < LEVEL[own], f"{module} imports {found.module}"


def test_of_the_agent_only_the_tiny_one_knows_the_world() -> None:
    knows = {
        name
        for name, found in modules().items()
        if part_of(name) == "agent" and any(part_of(i.module) == "world" for i in found)
    }
    assert knows <= {"agent.tiny"}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        name: {found.module for found in held if found.top and not found.typing} - {name}
        for name, held in modules().items()
        if name != "__init__"
    }
    order = list(TopologicalSorter(graph).static_order())
    assert set(graph) <= set(order)


def run(code: str, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    code = f"{code}\nprint(*sorted(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


MAIN = """
import sys
from agentic_r.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("code", code)
"""


@pytest.mark.parametrize(
    "module",
    ["", *(f".{name}" for name in (*WORDS, "cli", "stage", "data", "world", "testing"))],
)
def test_the_light_part_loads_nothing_heavy(module: str) -> None:
    assert run(f"import sys, agentic_r{module}") == "\n"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["loop", "--help"], ["loop", "no-such.toml"], ["loop", "{config}", "--seed", "x"]],
    ids=" ".join,
)
def test_help_and_config_errors_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text("seed = 1\n")
    said = run(MAIN, *(argument.replace("{config}", str(config)) for argument in arguments))
    assert said.splitlines()[-1] == ""
    assert len(said.splitlines()) == (1 if "--help" in arguments else 2)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
