"""Real passages for the benchmarks: documentation files and docstrings of installed packages.

    python benchmarks/texts.py texts.jsonl --count 50000 --words 40

They are there on every machine that has the package's requirements, and nothing is downloaded.
Blocks of so many words are taken in the order of the files; a block that occurs twice counts once.
"""

from __future__ import annotations

import argparse
import ast
import json
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

TEXTS = {".md", ".rst", ".txt"}


def folders() -> list[Path]:
    """Return where packages are installed, the standard library last."""
    paths = [*site.getsitepackages(), *(p for p in sys.path if p.endswith("site-packages"))]
    found = dict.fromkeys([*paths, sysconfig.get_paths()["stdlib"]])
    return [Path(path) for path in found if Path(path).is_dir()]


def documents() -> Iterator[str]:
    """Yield the documentation files and docstrings of everything installed, in a fixed order."""
    for folder in folders():
        for path in sorted(folder.rglob("*")):
            if path.suffix in TEXTS or path.name == "METADATA":
                yield path.read_text(encoding="utf-8", errors="replace")[:200_000]
            elif path.suffix == ".py":
                yield from docstrings(path)


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module; none where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def blocks(words: int) -> Iterator[str]:
    """Yield blocks of so many words, each once; what is left of a document is left out."""
    seen: set[int] = set()
    for document in documents():
        held = document.split()
        for start in range(0, len(held) - words + 1, words):
            block = " ".join(held[start : start + words])
            key = hash(block)
            if key not in seen and sum(letter.isalpha() for letter in block) > len(block) // 2:
                seen.add(key)
                yield block


def real_texts(count: int, words: int) -> list[str]:
    """Return `count` blocks. Raises SystemExit where the machine has fewer."""
    found = list(islice(blocks(words), count))
    if len(found) < count:
        raise SystemExit(f"got {len(found)} blocks of {words} words here, expected {count}")
    return found


def corpus_file(path: Path, count: int, words: int) -> Path:
    """Write `count` blocks as a corpus, unless the file is there; reading all takes minutes."""
    if not path.exists():
        rows = ({"id": str(n), "text": t} for n, t in enumerate(real_texts(count, words)))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("target", type=Path, help="corpus file to write")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--words", type=int, default=40)
    given = parser.parse_args()
    print(corpus_file(given.target, given.count, given.words))
