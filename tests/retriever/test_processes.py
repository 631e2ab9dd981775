"""Two processes train exactly as one: loss, gradients, weights; and the verb hands work out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agentic_r.training.processes import Processes
from tests.runs import write_config
from tests.training.launching import launch

PROGRAM = """
import json, sys
from pathlib import Path
import msgspec, torch
from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.encoder import Encoder
from agentic_r.training.processes import join
from agentic_r.retriever.trainer import train
from agentic_r.types import Example, Passage

torch.set_num_threads(1)
folder, out, *cases = sys.argv[1:]
names = ["kavron", "telmi", "oskar", "brund", "wexley", "doria", "maleth", "quill"]
passages = [Passage(f"b{i}", f"{n} was born in the city", n) for i, n in enumerate(names)]
passages += [Passage(f"r{i}", f"{n} runs the firm " * (1 + i % 3), n) for i, n in enumerate(names)]
# Two queries, which may be on two processes, share one positive; a third lists its copy.
passages.append(Passage("copy", "KAVRON was  born in the city", "kavron"))
examples = [
    Example("d", f"q{i}", f"where was {n}", (f"b{i}",), (f"r{i}", "r0"), (1.0, 0.5, 0.2 * (i % 2)))
    for i, n in enumerate(names) if i
]
examples.append(Example("d", "same", "who was kavron", ("b0",), ("r1",), (1.0, 0.1)))
examples.append(Example("d", "also", "which city was kavron in", ("copy",), ("r2",), (1.0, 0.1)))
dev = [Example("d", f"dev{i}", f"who runs {n}", (f"r{i}",), ()) for i, n in enumerate(names)]
found = {}

class Stop(Exception):
    pass

def stop(step):
    if step == 3:
        raise Stop

def trained(case, **more):
    settings = msgspec.convert(
        dict(epochs=2, batch=4, learning_rate=1e-3, temperature=0.1, precision="fp32")
        | json.loads(case),
        RetrieverTrainConfig,
    )
    return train(Encoder.load(folder, 32), Corpus(passages), examples, settings, 0, dev=dev,
                 progress=False, **more)

def halted(case):
    state = dict(folder=Path(out).with_suffix(".state"), checkpoint_seconds=0.0)
    try:
        trained(case, **state, on_step=stop)
    except Stop:
        pass
    result = trained(case, **state)
    assert result.resumed_at == 3
    return result

for case in [*cases, "halted"]:
    result = halted(cases[0]) if case == "halted" else trained(case)
    found[case] = {
        "loss": [x["loss"] for x in result.curve],
        "accuracy": [x["accuracy"] for x in result.curve],
        "dev": result.dev,
        "weights": {
            name: tensor.flatten()[:50].tolist()
            for name, tensor in result.encoder.model.state_dict().items()
        },
    }
rank = join().rank
Path(out).with_suffix(f".{rank}.json").write_text(json.dumps(found))
"""

CASES: list[dict[str, Any]] = [
    {},
    {"cache_tokens": 16},
    {"recipe": "upstream", "loss": "rank-net"},
    {"loss": "listwise-kl", "refresh": 1, "keep": "best", "evaluations": 2},
    {"side": "query"},
    {"batch": 1},
]


@pytest.fixture(scope="module")
def both(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "program.py").write_text(PROGRAM)
    cases = [json.dumps(case) for case in CASES]
    for size in (1, 2):
        program = [str(folder / "program.py"), str(checkpoint), str(folder / f"{size}"), *cases]
        for done in launch(program, size):
            assert done.returncode == 0, done.stderr
    return {
        name: json.loads((folder / f"{name}.json").read_text()) for name in ("1.0", "2.0", "2.1")
    }


@pytest.mark.parametrize("case", [json.dumps(case) for case in CASES])
def test_two_processes_train_as_one(both: dict[str, Any], case: str) -> None:
    alone, first, second = (both[name][case] for name in ("1.0", "2.0", "2.1"))
    assert first == second
    assert first["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    assert first["accuracy"] == alone["accuracy"]
    assert first["dev"] == alone["dev"]
    for name, weights in alone["weights"].items():
        torch.testing.assert_close(
            torch.tensor(first["weights"][name]), torch.tensor(weights), atol=2e-5, rtol=0
        )


def test_two_processes_go_on_from_their_checkpoint(both: dict[str, Any]) -> None:
    first, second = (both[name]["halted"] for name in ("2.0", "2.1"))
    assert first == second
    assert first == both["2.0"][json.dumps(CASES[0])]


def test_shares_hold_every_row_once_and_are_even() -> None:
    lengths = [5, 90, 7, 7, 30, 31, 2, 64, 64]
    shares = Processes(0, 3).shares(lengths)
    assert sorted(row for share in shares for row in share) == list(range(9))
    tokens = [sum(lengths[row] for row in share) for share in shares]
    assert max(tokens) - min(tokens) <= 60
    assert Processes(2, 4).shares([3, 4]) == [[1], [0], [], []]


@pytest.mark.slow
def test_the_verb_trains_with_waiting_processes(tmp_path: Path) -> None:
    """`torchrun -m agentic_r ...` needs no change: one process runs, the others train."""
    config = write_config(tmp_path, runs=tmp_path / "runs")
    tail = ["train", str(config), "retriever", "--retriever.train.precision", "fp32"]
    program = ["-m", "agentic_r.cli", *tail]
    alone, *_ = launch([*program, "--name", "one"], 1)
    first, second = launch([*program, "--name", "two"], 2)
    assert (alone.returncode, first.returncode, second.returncode) == (0, 0, 0), first.stderr
    assert second.stdout == ""
    assert "dev hit@3" in first.stdout
    curves = [
        [json.loads(line)["loss"] for line in path.read_text().splitlines()]
        for name in ("one", "two")
        for path in [tmp_path / "runs" / name / "iteration-1" / "retriever" / "curve.jsonl"]
    ]
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)


@pytest.mark.slow
def test_an_error_of_the_first_process_ends_all(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    program = [*launcher, "-m", "agentic_r.cli", "loop", str(tmp_path / "none.toml")]
    (done,) = launch(program, 1)
    assert done.returncode == 1
    assert "agentic-r: " in done.stderr
    assert "there is no such config file" in done.stderr
