"""The public names: all there, all found, none of them heavy before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import agentic_r
from agentic_r import errors

ROOT = Path(__file__).parents[1]
SOURCE = Path(agentic_r.__file__)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", agentic_r.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(agentic_r, name) is not None


def test_all_types_and_homes_name_the_same() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    guarded = next(
        node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.unparse(node.test)
    )
    typed = {}
    for node in guarded.body:
        assert isinstance(node, ast.ImportFrom)
        typed.update({alias.name: node.module for alias in node.names})
    lazy = {name: f"agentic_r.{module}" for name, module in agentic_r._WHERE.items()}
    assert typed == lazy
    assert sorted([*lazy, "__version__"]) == sorted(agentic_r.__all__)
    assert len(set(agentic_r.__all__)) == len(agentic_r.__all__)


def test_every_error_is_public() -> None:
    defined = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert set(defined) <= set(agentic_r.__all__)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, agentic_r as ar; ar.Passage, ar.Corpus, ar.load_questions, ar.AgenticRError; "
        "print(*(m for m in ('torch', 'transformers', 'faiss', 'httpx', 'numpy') "
        "if m in sys.modules))"
    )
    assert run(code) == ""


def test_star_and_dir_show_the_names() -> None:
    assert set(agentic_r.__all__) <= set(dir(agentic_r))
    assert run("from agentic_r import Corpus, f1; print(Corpus.__name__, f1('a', ['a']))")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"agentic_r.*Corpsu"):
        _ = agentic_r.Corpsu


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import agentic_r as ar\n"
        "try: ar.DenseRetriever\n"
        "except ar.MissingExtraError as error: print(error)"
    )
    assert "pip install 'agentic-r[local]'" in run(code)


def test_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert agentic_r.__version__ == project["version"]
