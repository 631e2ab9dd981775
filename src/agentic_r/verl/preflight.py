"""Looks for what verl would hang on: `python -m agentic_r.verl.preflight FOLDER`.

Run by verl's own Python. verl waits without a word for a GPU that is not there, so GPUs are counted
before it is started. Every check is made and told in a line; the exit code is 1 where one failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.errors import AgenticRError, ConfigError, DataError
from agentic_r.verl.carried import NAME, Carrying

Check = Callable[[Path], str]
"""Looks at one thing and says in a few words what it found; raises where it is not fit."""


def versions(folder: Path) -> str:
    """Compare what is installed with requirements.txt: every package there, of the same series."""
    found = []
    for line in (folder / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name = re.split(r"[\[<>=]", line, maxsplit=1)[0]
        wanted = line.partition("==")[2]
        try:
            got = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(f"{name} is not installed, expected {line}") from None
        if wanted and _series(got) != _series(wanted):
            raise ConfigError(f"{name}: got {got}, expected {wanted} (requirements.txt)")
        found.append(f"{name} {got}")
    return ", ".join(found)


def _series(version: str) -> list[str]:
    """The first two numbers of a version: what patches leave alone."""
    return version.split("+")[0].split(".")[:2]


def settings(folder: Path) -> str:
    """Let verl compose and validate its settings."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    config = composed(folder)
    critic = need_critic(config)
    validate_config(config, need_reference_policy(config), critic)
    return f"{config.algorithm.adv_estimator}, {'a critic' if critic else 'no critic'}"


def composed(folder: Path, overrides: tuple[str, ...] = ()) -> Any:
    """Return verl's settings as it will see them."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(folder.resolve()), version_base=None):
        return compose("agentic_r", overrides=list(overrides))


def data(folder: Path) -> str:
    """Look at the schema of both files, and at whether every prompt fits."""
    import pyarrow.parquet as parquet
    from transformers import AutoTokenizer

    carrying = _carrying(folder)
    tokenizer = AutoTokenizer.from_pretrained(carrying.agent.model)
    longest = count = 0
    for name in ("train.parquet", "dev.parquet"):
        rows = parquet.read_table(folder / name).to_pylist()
        for number, row in enumerate(rows, 1):
            _check_row(row, f"{name}: row {number}")
            longest = max(longest, len(tokenizer(row["prompt"][0]["content"])["input_ids"]))
        count += len(rows)
    if longest > carrying.prompt_length:
        raise DataError(
            f"the longest prompt has {longest} tokens, expected at most {carrying.prompt_length}; "
            "raise agent.train.verl.prompt_length"
        )
    return f"{count} rows, longest prompt {longest} of {carrying.prompt_length} tokens"


def lengths(folder: Path) -> str:
    """Compare the room for a response with what the turns may write, and with the model."""
    from transformers import AutoConfig

    carrying = _carrying(folder)
    written = carrying.agent.turns * carrying.agent.max_tokens
    if carrying.response_length <= written:
        raise ConfigError(
            f"agent.train.verl.response_length: got {carrying.response_length}, expected more than "
            f"{written}, which {carrying.agent.turns} turns may write without any evidence"
        )
    config = AutoConfig.from_pretrained(carrying.agent.model).get_text_config()
    whole = carrying.prompt_length + carrying.response_length
    limit = int(getattr(config, "max_position_embeddings", whole))
    if whole > limit:
        raise ConfigError(
            f"prompt_length and response_length are {whole} tokens together, expected at most "
            f"{limit}, which the model reads"
        )
    return f"{whole} tokens a trajectory, the model reads {limit}"


def retriever(folder: Path) -> str:
    """Search once, as the agent loop will."""
    from agentic_r.retriever.remote import RemoteRetriever

    carrying = _carrying(folder)
    (hits,) = RemoteRetriever(carrying.retriever).search(["who?"], carrying.k)
    return f"{carrying.retriever} found {len(hits)} passages"


def gpus(folder: Path) -> str:
    """Count the GPUs of the cluster that Ray would take."""
    import ray

    config = composed(folder)
    wanted = config.trainer.nnodes * config.trainer.n_gpus_per_node
    started = not ray.is_initialized()
    if started:
        # The cluster that is there, else this machine: as verl will.
        ray.init(log_to_driver=False, ignore_reinit_error=True)
    try:
        nodes = [n["Resources"].get("GPU", 0) for n in ray.nodes() if n["Alive"]]
    finally:
        if started:
            ray.shutdown()
    per_node = config.trainer.n_gpus_per_node
    if sum(count >= per_node for count in nodes) < config.trainer.nnodes:
        raise ConfigError(
            f"the cluster has {[int(n) for n in nodes]} GPUs by node, expected {per_node} on each "
            f"of {config.trainer.nnodes}; start Ray on every node (ray start), or set "
            "agent.train.verl.nodes and gpus"
        )
    return f"{int(sum(nodes))} GPUs, {wanted} wanted"


CHECKS: Mapping[str, Check] = {
    "versions": versions,
    "settings": settings,
    "data": data,
    "lengths": lengths,
    "retriever": retriever,
    "gpus": gpus,
}


def run(folder: Path, names: tuple[str, ...] = tuple(CHECKS)) -> dict[str, str]:
    """Make the checks of these names, say what each found, and return what failed and why."""
    failed = {}
    for name in names:
        try:
            print(f"{name:10} ok      {CHECKS[name](folder)}", flush=True)
        except (AgenticRError, ImportError, AssertionError, ValueError, OSError, KeyError) as error:
            failed[name] = str(error) or type(error).__name__
            print(f"{name:10} FAILED  {failed[name]}", flush=True)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Check a folder; returns 1 where something is not fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=tuple(CHECKS), default=tuple(CHECKS))
    options = parser.parse_args(arguments)
    return int(bool(run(options.folder, tuple(options.only))))


def _carrying(folder: Path) -> Carrying:
    return msgspec.json.decode((folder / "agent.json").read_bytes(), type=Carrying)


def _check_row(row: Mapping[str, Any], where: str) -> None:
    wanted = {"data_source", "prompt", "ability", "reward_model", "extra_info", "agent_name"}
    if lacking := wanted - set(row):
        raise DataError(f"{where}: lacks {sorted(lacking)}, expected verl's schema")
    if row["agent_name"] != NAME:
        raise DataError(f"{where}: got agent_name {row['agent_name']!r}, expected {NAME!r}")
    if not row["reward_model"]["ground_truth"]["target"]:
        raise DataError(f"{where}: has no answers")


if __name__ == "__main__":
    sys.exit(main())
