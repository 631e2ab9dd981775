"""The newest finished iteration is served, in its own input form, while a loop holds the run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agentic_r.agent.query import save_form
from agentic_r.cli import main
from agentic_r.config import Config, load_config
from agentic_r.loop import open_run
from agentic_r.parts import open_data
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.quick import QuickEncoder
from agentic_r.served import PAIRS, Opening, newest, open_served
from agentic_r.steps import Loop, Nothing, index
from tests.retriever.conftest import make_checkpoint
from tests.retriever.test_rerank import make_cross_encoder
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


def changed(config: Config, **settings: object) -> Config:
    """The config with other settings of the retriever."""
    raw = msgspec.to_builtins(config)
    raw["retriever"] |= settings
    return msgspec.convert(raw, Config)


def test_a_trained_query_side_is_found_in_the_untouched_index(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    base = open_served(config)
    with open_run(config) as run:
        trained = Encoder.load(str(make_checkpoint(tmp_path / "trained", seed=5)), max_length=48)
        trained.settings = msgspec.structs.replace(trained.settings, trained_for=base.main.key)
        stage = run.stage("iteration-1/retriever", {})
        trained.save(stage.folder / "model")
        stage.finish({})
    assert newest(config) == 1
    served = open_served(config)
    assert [offer.name for offer in served.offers] == ["iteration 1", "untouched"]
    assert not (tmp_path / "runs" / "run" / "iteration-1" / "index").exists()
    assert served.main.key != base.main.key
    assert len(served.main.retriever.search(["ada"], 3)[0]) == 3


def test_what_the_config_composes_is_served(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    rerank = {"model": str(make_cross_encoder(tmp_path / "cross")), "depth": 4, "max_length": 48}
    plain = open_served(config)
    fused = open_served(changed(config, kind="fused"))
    assert [offer.name for offer in fused.offers] == ["fused (untouched dense)", "untouched"]
    assert fused.main.encoder is not None and fused.reranker is None
    lexical = open_served(changed(config, kind="bm25"))
    assert [(offer.name, offer.encoder) for offer in lexical.offers] == [("bm25", None)]
    both = Opening(changed(config, kind="fused", rerank=rerank))
    ranked = both()
    assert ranked.main.name == "fused (untouched dense), reranked"
    assert ranked.main.batch == PAIRS // 4
    assert ranked.reranker is not None
    hits = ranked.main.retriever.search(["where was ada born"], 4)[0]
    pairs = [("where was ada born", hit.passage.contents) for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(ranked.reranker.scores(pairs))
    versions = {each.version for each in (plain, fused, lexical, ranked)}
    assert len(versions) == 4
    again = both()
    assert (again.version, again.reranker) == (ranked.version, ranked.reranker)
    make_cross_encoder(tmp_path / "cross", seed=9)
    assert both().version != ranked.version


def test_a_service_keeps_its_models_and_leaves_the_cache_alone(tmp_path: Path) -> None:
    config = changed(load_config(write_config(tmp_path)), cache=str(tmp_path / "found.db"))
    opening = Opening(config, quick=True)
    first, second = opening(), opening()
    assert isinstance(first.main.encoder, QuickEncoder)
    assert first.main.engine == first.main.encoder.engine.name != ""
    assert second.main.encoder is first.main.encoder
    assert second.main.retriever is not first.main.retriever
    assert not (tmp_path / "found.db").exists()
    exact = open_served(config).main
    assert [hit.passage for hit in exact.retriever.search(["ada"], 3)[0]] == [
        hit.passage for hit in first.main.retriever.search(["ada"], 3)[0]
    ]
    assert (tmp_path / "found.db").exists()


def test_searching_needs_no_lock_and_no_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path)
    config = load_config(path)
    open_served(config)
    flags = ["--agent.model", "http://localhost:9/v1"]
    with open_run(config):
        assert main(["search", str(path), "where was ada born", *flags]) == 0
    assert capsys.readouterr().out.startswith("untouched retriever\n1. ")
