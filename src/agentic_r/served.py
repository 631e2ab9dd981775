"""What a config names, opened for the service: the run's newest retriever and the untouched one.

Nothing is written and no lock is taken where the indexes are there, so that a run can be served
while its loop goes on; the next reload finds what the loop has finished meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from agentic_r.agent.query import read_form
from agentic_r.config import Config
from agentic_r.errors import LLMError
from agentic_r.loop import open_run, run_folder
from agentic_r.parts import Data, load_encoder, open_data, open_encoder
from agentic_r.protocols import Completion, Prompt, Sampling
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.serve.offer import Offer, Served
from agentic_r.steps import Loop, index, write_data

QUERY_TOKENS = 512
"""Tokens of one encoding batch: queries are short, and larger batches of them are padding."""


def open_served(config: Config) -> Served:
    """Open the newest finished retriever of the run, and the untouched one.

    Where there is no index at all, the untouched one's is built. Raises AgenticRError where what
    is there cannot be opened.
    """
    folder = run_folder(config)
    number = newest(config)
    data = open_data(config)
    if number is None and not _finished(folder / "base" / "index"):
        with open_run(config) as run:
            loop = Loop(run, config, data, _NoAgent(), "")
            write_data(loop)
            index(loop, "base/index", open_encoder(config))
    offers = []
    if number is not None:
        part = folder / f"iteration-{number}"
        model = part / "retriever" / "model"
        encoder = load_encoder(config, str(model))
        form = read_form(model, config.retriever.input)
        offers.append(_offer(f"iteration {number}", encoder, part / "index", form, data))
    if _finished(folder / "base" / "index"):
        encoder = open_encoder(config)
        offers.append(_offer("untouched", encoder, folder / "base" / "index", "query", data))
    return Served(data.corpus, tuple(offers), folder)


def newest(config: Config) -> int | None:
    """Return the newest iteration whose model and index are finished, None where there is none."""
    for number in range(config.loop.iterations, 0, -1):
        part = run_folder(config) / f"iteration-{number}"
        if _finished(part / "retriever") and _finished(part / "index"):
            return number
    return None


class _NoAgent:
    """Stands where the loop has its agent: an index needs none."""

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        raise LLMError("the service has no agent")


def _finished(stage: Path) -> bool:
    return (stage / "manifest.json").is_file()


def _offer(name: str, encoder: Encoder, stage: Path, form: str, data: Data) -> Offer:
    encoder.batch_tokens = QUERY_TOKENS
    retriever = DenseRetriever.open(encoder, data.corpus, stage / "index")
    model = encoder.settings.base if name == "untouched" else f"{encoder.settings.base}, {name}"
    return Offer(name, encoder.fingerprint, model, form, retriever, encoder)
