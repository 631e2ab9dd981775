from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from agentic_r.cli import main
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from tests.retriever.conftest import make_checkpoint
from tests.retriever.test_imported import CORPUS, vectors, written


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    checkpoint = str(make_checkpoint(tmp_path / "encoder"))
    rows = [{"id": p.id, "contents": f'"{p.title}"\n{p.text}'} for p in CORPUS]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = Encoder.load(checkpoint, 48, changes={"pooling": "cls"})
    written(tmp_path / "e5_Flat.index", vectors(built))
    names = {"corpus": "corpus.jsonl", "index": "e5_Flat.index", "out": "out"}
    return {"encoder": checkpoint} | {key: str(tmp_path / name) for key, name in names.items()}


def convert(parts: dict[str, str], *more: str) -> int:
    words = ["--corpus", parts["corpus"], "--encoder", parts["encoder"], "--max-length", "48"]
    return main(["convert", "index", parts["index"], parts["out"], *words, *more])


def test_what_is_printed_opens_it(
    parts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(parts, "--pooling", "cls") == 0
    said = capsys.readouterr().out
    settings = tomllib.loads(said[said.index("[retriever]") :])["retriever"]
    encoder = Encoder.load(
        settings["base"], settings["max_length"], changes=settings.get("encoder")
    )
    retriever = DenseRetriever.open(encoder, Corpus.load(parts["corpus"]), Path(parts["out"]))
    assert retriever.search([CORPUS[7].contents], 3)[0][0].passage == CORPUS[7]


def test_wrong_conventions_name_the_right_ones(
    parts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(parts) == 1
    assert "--pooling cls" in capsys.readouterr().err
    assert not Path(parts["out"]).exists()


def test_a_run_takes_it_over(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(parts, "--pooling", "cls") == 0
    said = capsys.readouterr().out
    settings = said[said.index("[retriever]") :]
    config = tmp_path / "run.toml"
    (tmp_path / "questions.jsonl").write_text(
        "".join(
            json.dumps({"id": f"q{n}", "question": f"who {n}?", "golden_answers": ["x"]}) + "\n"
            for n in range(20)
        )
    )
    data = f'[data]\nsource = "files"\ncorpus = "{parts["corpus"]}"\n'
    data += f'questions = "{tmp_path}/questions.jsonl"\n'
    config.write_text(f'name = "r"\nruns = "{tmp_path}/runs"\n{data}{settings}')
    assert main(["index", str(config)]) == 0
    assert "another program" in capsys.readouterr().out
    folder = tmp_path / "runs" / "r" / "base" / "index" / "index"
    assert (folder / "passages.faiss").samefile(tmp_path / "e5_Flat.index")
    assert main(["index", str(config), "--retriever.max_length", "40"]) == 1  # another encoder
