"""The quickstart itself, shortened: the real agent, the real encoder, a smaller world."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SHORT = {
    "world.people": 24,
    "world.companies": 16,
    "world.cities": 16,
    "world.films": 14,
    "world.novels": 14,
    "world.train_questions": 80,
    "world.dev_questions": 10,
    "world.test_questions": 60,
    "evaluation.ks": "[1, 3]",
    "retriever.train.batch": 16,
}


@pytest.mark.short
def test_shortened_quickstart_improves_the_answers(tmp_path: Path) -> None:
    overrides = [part for key, value in SHORT.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "agentic_r.cli", "loop", "configs/quickstart.toml"]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path), *overrides],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    report = json.loads((tmp_path / "quickstart" / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    oracle = next(row for name, row in rows.items() if name.startswith("oracle"))
    assert oracle["em"] >= 0.8
    assert report["gain"]["em"] >= 0.1
    assert all(cost["continuations"] < cost["exhaustive"] / 4 for cost in report["labelling"])
    page = (tmp_path / "quickstart" / "report.html").read_text()
    assert report["gain"]["name"] in page
