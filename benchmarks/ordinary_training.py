"""Do eager attention and no dropout, which make training fast, cost any quality?

    python benchmarks/ordinary_training.py [--runs FOLDER] [--seeds 0 1 2] [--SETTING VALUE ...]

One iteration of the quickstart a seed with training as it is, and a fork of it whose encoder is
trained the ordinary way: dropout as its own config has it (.1 for MiniLM) and PyTorch's fused
attention. The package has no setting for it, so this file puts it there. The fork measures on dev
twice an epoch, which changes nothing but that its retriever is trained anew. Baseline: training
as it is, paired question by question. Runs of labels_ablation.py in the same folder are used; run
again, it resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from labels_ablation import DEFAULT, VARIANTS, line, run
from program import arguments

from agentic_r.config import RetrieverTrainConfig
from agentic_r.errors import AgenticRError
from agentic_r.retriever import training

ORDINARY = "dropout"


@contextmanager
def ordinary() -> Iterator[None]:
    """Train with dropout and fused attention inside."""
    plain = training.prepare

    def prepare(model: Any, settings: RetrieverTrainConfig, seed: int) -> Any:
        torch.manual_seed(seed)
        model = plain(model, settings, seed)
        model.set_attn_implementation("sdpa")
        return model.train()

    training.prepare = prepare
    try:
        yield
    finally:
        training.prepare = plain


def main(given: Sequence[str] | None = None) -> int:
    """Run what is not done, then print the table; returns the exit code."""
    options, rest = arguments(__doc__).parse_known_args(given)
    VARIANTS[ORDINARY] = ("--retriever.train.evaluations", "2")
    try:
        as_it_is = [run(options.runs, seed, DEFAULT, rest) for seed in options.seeds]
        with ordinary():
            usual = [run(options.runs, seed, ORDINARY, rest) for seed in options.seeds]
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\nvariant, dev EM (by seed), to the default (95 %), the same on test")
    print(line(DEFAULT, as_it_is, as_it_is))
    print(line(ORDINARY, usual, as_it_is))
    return 0


if __name__ == "__main__":
    sys.exit(main())
