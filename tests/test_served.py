"""The newest finished iteration is served, in its own input form, while a loop holds the run."""

from __future__ import annotations

from pathlib import Path

from agentic_r.agent.query import save_form
from agentic_r.config import load_config
from agentic_r.loop import open_run
from agentic_r.parts import open_data
from agentic_r.retriever.encoder import Encoder
from agentic_r.served import newest, open_served
from agentic_r.steps import Loop, Nothing, index
from tests.retriever.conftest import make_checkpoint
from tests.serve.process import write_config


def test_the_newest_iteration_and_the_untouched_one(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    before = open_served(config)
    assert [offer.name for offer in before.offers] == ["untouched"]
    assert newest(config) is None
    with open_run(config) as run:
        loop = Loop(run, config, open_data(config), Nothing(), "")  # type: ignore[arg-type]
        encoder = Encoder.load(str(make_checkpoint(tmp_path / "trained", seed=5)), max_length=48)
        stage = run.stage("iteration-1/retriever", {})
        model = stage.folder / "model"
        encoder.save(model)
        save_form(model, "question+reasoning+query")
        assert newest(config) is None
        stage.finish({})
        index(loop, "iteration-1/index", Encoder.load(str(model), max_length=48))
        after = open_served(config)
    assert [offer.name for offer in after.offers] == ["iteration 1", "untouched"]
    assert after.version != before.version
    assert after.main.form == "question+reasoning+query"
    assert after.main.sent("city", "where?", "a thought") == "where? [SEP] a thought [SEP] city"
    assert after.main.sent("city") == "city"
    assert after.offers[1].sent("city", "where?") == "city"
    assert len(after.main.retriever.search(["ada"], 3)[0]) == 3
