"""Peak memory of one training step, direct and with gradient caching, and the gradients' distance.

    python benchmarks/training_memory.py [--queries 32] [--length 64] [--cache 2048]

Each way runs in a process of its own, which trains the small encoder for one step on 32 queries
of 16 distinct passages. Printed are the peak of resident memory above what the process held before
the step, the ratio, and the largest difference of any weight's gradient, relative to the largest
gradient. Direct, 140 tokens a passage need about 20 GB in fp32; the ratio hardly depends on it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))


def step(options: argparse.Namespace, out: Path) -> None:
    """Run one step in this process and write its peak and gradients to `out`."""
    from retriever_training import ENCODER, examples

    from agentic_r.config import RetrieverTrainConfig
    from agentic_r.retriever.batches import Batches
    from agentic_r.retriever.encoder import Encoder
    from agentic_r.retriever.training import Training
    from agentic_r.training.processes import Processes

    torch.set_num_threads(1)
    corpus, rows = examples(options.queries, 1, options.length, 0.0, 0)
    encoder = Encoder.load(ENCODER, min(256, round(1.3 * options.length)))
    settings = RetrieverTrainConfig(cache_tokens=options.cache, batch=options.queries)
    batches = Batches(rows, options.queries, 0)
    training = Training(
        encoder, encoder, corpus, batches, settings, 0,
        bf16=options.bf16, dev=None, processes=Processes(),
    )  # fmt: skip
    encoder.encode(["warm up"], "query")
    before = resident()
    training.backward(next(batches.epoch(0)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gradients = {n: p.grad for n, p in encoder.model.named_parameters() if p.grad is not None}
    torch.save({"memory": peak - before, "gradients": gradients}, out)


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--queries", type=int, default=32, help="queries a step")
    parser.add_argument("--length", type=int, default=64, help="mean tokens of a passage")
    parser.add_argument("--cache", type=int, default=2048, help="tokens encoded at once")
    parser.add_argument("--bf16", action="store_true", help="train in bf16 instead of fp32")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        step(options, options.out)
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in (0, options.cache):
            out = Path(folder) / f"{cache}.pt"
            given = ["--queries", options.queries, "--length", options.length, "--cache", cache]
            command = [sys.executable, __file__, *map(str, given), "--out", str(out)]
            subprocess.run([*command, *(["--bf16"] if options.bf16 else [])], check=True)
            found.append(torch.load(out))
    direct, cached = found
    largest = max(float(g.abs().max()) for g in direct["gradients"].values())
    apart = max(
        float((g - cached["gradients"][name]).abs().max())
        for name, g in direct["gradients"].items()
    )
    ratio = cached["memory"] / direct["memory"]
    print(f"{options.queries} queries x 16 passages, {'bf16' if options.bf16 else 'fp32'}")
    print(f"direct           {direct['memory'] / 2**20:8.0f} MiB")
    print(f"gradient caching {cached['memory'] / 2**20:8.0f} MiB, {ratio:.2f} of direct")
    print(f"gradients differ by at most {apart / largest:.1e} of the largest")


if __name__ == "__main__":
    main()
