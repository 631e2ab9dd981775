"""`agentic-r convert examples`: training sets from one trainer's format into another's."""

from __future__ import annotations

import argparse

ABOUT = "Turn a training set into another trainer's format."

FORMATS = ("ours", "upstream", "tevatron", "tevatron-legacy", "sentence-transformers", "beir")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="SOURCE", help="training set; beir: a folder")
    parser.add_argument("target", metavar="TARGET", help="file or folder to write")
    parser.add_argument("--from", required=True, choices=FORMATS, dest="source_form", help="format")
    parser.add_argument("--to", required=True, choices=FORMATS, dest="target_form", help="format")
    parser.add_argument(
        "--corpus", default="", metavar="FILE", help="passages, where ids are to become texts"
    )
    parser.add_argument(
        "--row-numbers", action="store_true", help="SOURCE names passages by row in the corpus"
    )
    parser.add_argument("--dataset", default="", metavar="NAME", help="default: the file's name")
    parser.add_argument(
        "--corpus-out", default="", metavar="FILE", help="write the passages that SOURCE holds"
    )


def run(options: argparse.Namespace) -> None:
    """Convert, and print how much there was and what was left out."""
    from collections import Counter

    from agentic_r.data.corpus import Corpus
    from agentic_r.exchange.counting import counted, lines
    from agentic_r.exchange.training_sets import (
        WITH_TEXTS,
        by_row_number,
        check_ids,
        read_training_set,
        write_training_set,
    )
    from agentic_r.io import write_jsonl

    _check(options, WITH_TEXTS)
    left: Counter[str] = Counter()
    examples, passages = read_training_set(
        options.source, options.source_form, options.dataset, left
    )
    corpus = Corpus.load(options.corpus) if options.corpus else None
    if corpus is None and passages:
        corpus = Corpus(list(passages.values()))
    if corpus is not None:
        examples = by_row_number(examples, corpus) if options.row_numbers else examples
        check_ids(examples, corpus)
    written = write_training_set(options.target, options.target_form, examples, corpus, left)
    print(f"{options.target}: {counted(written, 'examples')}")
    for line in lines(left):
        print(f"  {line}")
    if options.corpus_out:
        rows = ({"id": each.id, "contents": each.contents} for each in passages.values())
        write_jsonl(options.corpus_out, rows)
        print(f"{options.corpus_out}: {counted(len(passages), 'passages')}")
    elif passages and options.target_form not in WITH_TEXTS:
        print(
            f"  its ids name passages that {options.source} alone holds; to write them too, give "
            "--corpus-out FILE"
        )


def _check(options: argparse.Namespace, with_texts: frozenset[str]) -> None:
    """Refuse options that do not go together, before anything is read."""
    from pathlib import Path

    from agentic_r.converting.targets import refuse_overwriting
    from agentic_r.errors import ConfigError

    form = options.source_form
    if form in with_texts:
        for option, given in (("--corpus", options.corpus), ("--row-numbers", options.row_numbers)):
            if given:
                raise ConfigError(f"{option}: {form} holds its passages itself; leave it out")
    elif options.corpus_out:
        raise ConfigError(f"--corpus-out: {form} holds ids, no passages to write")
    if options.row_numbers and not options.corpus:
        raise ConfigError("--row-numbers: expected --corpus FILE, whose rows they are")
    written, read = [options.target, options.corpus_out], [options.source, options.corpus]
    if options.target_form == "beir":
        written.append(Path(options.target) / "corpus.jsonl")
    if form == "beir":
        read += [Path(options.source) / name for name in ("corpus.jsonl", "queries.jsonl")]
    refuse_overwriting(written, read)
