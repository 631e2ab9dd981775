"""`agentic-r convert chunk`: long documents to passages."""

from __future__ import annotations

import argparse
from pathlib import Path

ABOUT = "Cut long documents into passages by words or sentences, with overlap."


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "source", metavar="DOCUMENTS", help="corpus file of documents, or folder of .txt and .md"
    )
    parser.add_argument("target", metavar="CORPUS", help="corpus file to write, .jsonl")
    parser.add_argument(
        "--by", choices=("words", "sentences"), default="words", help="what is kept whole"
    )
    parser.add_argument(
        "--size", type=int, default=100, metavar="WORDS", help="words of a passage at most"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=0,
        metavar="WORDS",
        help="words that two neighbours share, at most where sentences are kept whole",
    )


def run(options: argparse.Namespace) -> None:
    """Cut, then open the result, which refuses ids that occur twice."""
    from agentic_r.converting.targets import refuse_overwriting
    from agentic_r.data.chunk import Cut, chunk_file
    from agentic_r.data.corpus import Corpus
    from agentic_r.exchange.counting import counted

    refuse_overwriting([options.target], [options.source])
    target = Path(options.target)
    counts = chunk_file(
        Path(options.source), target, Cut(options.by, options.size, options.overlap)
    )
    Corpus.load(target)
    made = f"{counted(counts.documents, 'documents')}, {counted(counts.passages, 'passages')}"
    print(f"{made} in {target}")
