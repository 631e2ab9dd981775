"""No file that is read can run: nothing in the source unpickles, evaluates or trusts code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentic_r

SOURCE = Path(agentic_r.__file__).parent

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
"""What turns bytes into objects of any class; the error of `pickle` may be caught."""

BUILTINS = {"eval", "exec", "compile", "__import__"}

SAFE = {"torch.load": ("weights_only", True)}
"""Calls that need a keyword to be safe."""

TRUSTS = {"allow_pickle", "trust_remote_code", "allow_dangerous_deserialization", "shell"}
"""Keywords that may not be true."""


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def faults(source: str) -> Iterator[str]:
    """Say what in a module's source could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.partition(".")[0] in MODULES - {"pickle"}:
                    yield f"{node.lineno}: imports {each.name}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield f"{node.lineno}: imports {node.module}"
        name = dotted(node) if isinstance(node, ast.Attribute) else ""
        if name.startswith("pickle.") and name != "pickle.UnpicklingError":
            yield f"{node.lineno}: uses {name}"
        if isinstance(node, ast.Call):
            yield from _call_faults(node)


def _call_faults(node: ast.Call) -> Iterator[str]:
    name = dotted(node.func)
    given = {each.arg: each.value for each in node.keywords}
    values = {key: v.value if isinstance(v, ast.Constant) else None for key, v in given.items()}
    if name in BUILTINS or name in ("yaml.load", "yaml.unsafe_load", "os.system"):
        yield f"{node.lineno}: calls {name}"
    if name in SAFE and values.get(SAFE[name][0]) is not SAFE[name][1]:
        yield f"{node.lineno}: {name} without {SAFE[name][0]}={SAFE[name][1]}"
    for key in TRUSTS & set(values):
        if values[key] is not False:
            yield f"{node.lineno}: {name} with {key}"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_read_can_run(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.js")), ids=lambda p: p.stem)
def test_no_page_makes_markup_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    made = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(")
    assert [each for each in (*made, "createContextualFragment", "DOMParser") if each in text] == []


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(raw)",
        "from pickle import loads",
        "from cloudpickle import loads",
        "import joblib.memory",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "yaml.load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_walk_sees_what_it_is_for(source: str) -> None:
    assert len(list(faults(source))) == 1
