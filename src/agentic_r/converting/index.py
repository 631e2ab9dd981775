"""`agentic-r convert index`: a FAISS index of FlashRAG or Search-R1, taken over as it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

ABOUT = "Take over a FAISS index that FlashRAG or Search-R1 built."


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="FILE", help="FAISS index, as e5_Flat.index")
    parser.add_argument("target", metavar="FOLDER", help="index folder to make")
    parser.add_argument("--corpus", required=True, metavar="FILE", help="corpus it was built from")
    parser.add_argument(
        "--encoder", required=True, metavar="NAME", help="encoder it was built with"
    )
    parser.add_argument(
        "--max-length", type=int, default=180, metavar="TOKENS", help="longest passage; FlashRAG's"
    )
    parser.add_argument(
        "--pooling",
        choices=("auto", "mean", "cls", "last"),
        default="auto",
        help="as it was built; auto takes what the encoder's files or its family say",
    )
    parser.add_argument(
        "--passage-prefix", default="auto", metavar="TEXT", help="put before each passage, or auto"
    )
    parser.add_argument(
        "--query-prefix", default="auto", metavar="TEXT", help="put before each query, or auto"
    )
    parser.add_argument(
        "--normalise", choices=("auto", "yes", "no"), default="auto", help="vectors of unit length"
    )
    parser.add_argument(
        "--probes", type=int, default=0, metavar="N", help="lists or nodes visited; 0: the file's"
    )


def run(options: argparse.Namespace) -> None:
    """Take it over and print how well it fits and what to write into a config."""
    import msgspec

    from agentic_r.data.corpus import Corpus
    from agentic_r.errors import ConfigError
    from agentic_r.retriever.encoder import Encoder
    from agentic_r.retriever.imported import import_index
    from agentic_r.retriever.index import about

    if options.probes < 0:
        raise ConfigError(f"--probes: got {options.probes}, expected 0 or more")
    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("pooling", "passage_prefix", "query_prefix")
        if getattr(options, name) != "auto"
    }
    if options.normalise != "auto":
        changes["normalise"] = options.normalise == "yes"
    corpus = Corpus.load(options.corpus)
    encoder = Encoder.load(options.encoder, options.max_length, changes=changes)
    folder = Path(options.target)
    made = import_index(Path(options.source), encoder, corpus, folder, options.probes)
    cosine = "" if made.fit.cosine is None else f", median cosine {made.fit.cosine:.4f}"
    print(f"{folder}: {about(made.manifest)}")
    print(f"{made.fit.found:.0%} of the passages tried find their own rows{cosine}")
    print(f"{made.known:.0%} of runs of eight words find their passage among the first 10")
    print("\nThe settings that go with it:\n")
    print(f"[retriever]\nbase = {_toml(options.encoder)}\nmax_length = {options.max_length}")
    changed = msgspec.structs.asdict(encoder.settings)
    lines = [f"{name} = {_toml(changed[name])}" for name in changes if name != "normalise"]
    if options.normalise != "auto":
        lines.append(f'normalise = "{options.normalise}"')
    if lines:
        print("\n[retriever.encoder]\n" + "\n".join(lines))
    print(f"\n[retriever.index]\nready = {_toml(str(folder))}")


def _toml(text: str) -> str:
    """Return a text as a TOML string, which JSON strings are."""
    import json

    return json.dumps(text, ensure_ascii=False)
