"""Writes the folder that verl trains from.

train.parquet dev.parquet   rows in verl's schema; agent_name says whose loop carries them
agent.json                  protocol, retriever, reward: what the loop needs to know
agent_loops.yaml            names the loop's class to verl
reward.py                   names the reward to verl
agentic_r.yaml              verl's settings: its own defaults under ours
requirements.txt            the environment that this was written for
run.sh                      preflight, then verl
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.agent.agent import TINY, tiny_checkpoint
from agentic_r.agent.dialects.template import read_file
from agentic_r.data.rl_rows import ABILITY, load_rl_questions
from agentic_r.errors import ConfigError, MissingExtraError, RunError
from agentic_r.io import write_atomic
from agentic_r.parts import open_data
from agentic_r.settings import AgentConfig, Config
from agentic_r.types import Question, Trajectory
from agentic_r.verl.carried import NAME, Carrying
from agentic_r.verl.options import options, response_length, to_yaml

VERL = "0.9"
"""The series of verl that the folder is for."""

LOCK = """\
# One environment holds verl and its engine, another one the rest of agentic-r.
verl[vllm]==0.9.1
torch==2.11.0
vllm==0.24.0
transformers==5.9.0
tensordict==0.10.0
cachetools
fastapi
uvicorn
pyarrow>=15
agentic-r=={version}
"""

SCRIPT = """\
#!/bin/sh
# Checks what verl would hang on, then trains. Arguments are further settings of verl, key=value.
set -e
here=$(cd "$(dirname "$0")" && pwd)
python -m agentic_r.verl.preflight "$here"
exec python -m verl.trainer.main_ppo --config-path "$here" --config-name agentic_r {overrides}"$@"
"""


def write(config: Config, folder: Path) -> Path:
    """Write everything verl needs for `train CONFIG agent` and return the folder.

    Raises ConfigError for settings that verl has no word for, DataError for unusable questions.
    """
    folder = folder.resolve()
    model = str(tiny_checkpoint()) if config.agent.model == TINY else config.agent.model
    if model.startswith(("http://", "https://")) or model == "oracle-reader":
        raise ConfigError(
            f"agent.model: got {model}, which cannot be trained; expected a folder or hub name"
        )
    settings = options(config, model, folder)
    data = open_data(config)
    files = config.agent.train.rl.files
    train = load_rl_questions([Path(file) for file in files]) if files else data.train
    dev = data.dev[: config.agent.train.rl.validate_questions]
    folder.mkdir(parents=True, exist_ok=True)
    carrying = _carrying(config, model, folder)
    dialect = carrying.dialect(None)
    for split, questions in (("train", train), ("dev", dev)):
        prompts = [str(dialect.prompt(Trajectory(q.id, q))) for q in questions]
        write_rows(questions, prompts, split, folder / f"{split}.parquet")
    loops = [
        f"- name: {NAME}",
        "  _target_: agentic_r.verl.loop.SearchLoop",
        f"  settings: {msgspec.json.encode(str(folder / 'agent.json')).decode()}",
    ]
    overrides = "".join(f"{_quoted(text)} " for text in config.agent.train.verl.overrides)
    head = "hydra:\n  searchpath: [pkg://verl.trainer.config]\ndefaults: [ppo_trainer, _self_]\n"
    for name, text in {
        "agent.json": msgspec.json.format(msgspec.json.encode(carrying)).decode() + "\n",
        "agent_loops.yaml": "\n".join(loops) + "\n",
        "reward.py": "from agentic_r.verl.reward import compute_score as compute_score\n",
        "agentic_r.yaml": head + to_yaml(settings),
        "requirements.txt": LOCK.format(version=version("agentic-r")),
        "run.sh": SCRIPT.format(overrides=overrides),
    }.items():
        write_atomic(folder / name, text.encode())
    (folder / "run.sh").chmod(0o755)
    return folder


def write_rows(
    questions: Sequence[Question], prompts: Sequence[str], split: str, path: Path
) -> None:
    """Write questions in verl's schema (contracts A4), `agent_name` beside it; all or nothing.

    Metadata is JSON text: parquet has no place for values of changing shape.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "rl") from error
    rows = [
        {
            "data_source": question.dataset,
            "prompt": [{"role": "user", "content": prompt}],
            "ability": ABILITY,
            "reward_model": {"style": "rule", "ground_truth": {"target": list(question.answers)}},
            "extra_info": {
                "split": split,
                "index": number,
                "id": question.id,
                "question": question.text,
                "metadata": msgspec.json.encode(question.metadata).decode(),
            },
            "agent_name": NAME,
        }
        for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True))
    ]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    write_atomic(path, buffer.getvalue())


def launch(folder: Path, python: str, overrides: Sequence[str]) -> None:
    """Check and train with verl's own Python. Raises RunError where either fails."""
    named = ["--config-path", str(folder), "--config-name", "agentic_r", *overrides]
    for arguments in (
        ["-m", "agentic_r.verl.preflight", str(folder)],
        ["-m", "verl.trainer.main_ppo", *named],
    ):
        try:
            done = subprocess.run([python, *arguments], check=False)
        except OSError as error:
            raise ConfigError(
                f"agent.train.verl.python: {python} cannot be run ({error.strerror}); expected the "
                "python of an environment made from requirements.txt"
            ) from error
        if done.returncode:
            raise RunError(
                f"{' '.join(arguments[:2])} ended with {done.returncode}; see its output above, "
                "mend it and give the same command again: verl goes on from its last checkpoint"
            )


def _carrying(config: Config, model: str, folder: Path) -> Carrying:
    """Say what the loop needs to know; prompts of the user's own are copied along."""
    changes: dict[str, Any] = {"model": model}
    for name in ("prompt_file", "invalid_file"):
        source = getattr(config.agent, name)
        if source:
            shutil.copyfile(source, folder / f"{name}.txt")
            changes[name] = str(folder / f"{name}.txt")
    agent: AgentConfig = msgspec.structs.replace(config.agent, **changes)
    brought = Path(model) / "prompt.txt"
    template = read_file(brought, "agent.model") if brought.is_file() else None
    verl = config.agent.train.verl
    return Carrying(
        agent,
        template,
        config.retriever.k,
        config.retriever.input,
        verl.retriever,
        verl.prompt_length,
        response_length(config),
    )


def _quoted(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"agent.train.verl.overrides: got {text!r}, expected key=value")
    return "'" + text.replace("'", "'\\''") + "'"
