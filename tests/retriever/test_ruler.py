"""The ruler counts what the encoder reads, so that what fits it loses nothing there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentic_r.agent.query import Part, fitted
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.ruler import QueryRuler

WORDS = ("kavron", "telmi", "the", "city", "Ünder", "x9", "\ud800", "日本", ".", "[SEP]", "<a>")


@pytest.fixture(params=["", "query: "])
def short(encoder: Encoder, request: pytest.FixtureRequest) -> Encoder:
    made = encoder.copy()
    made.settings = msgspec.structs.replace(made.settings, query_prefix=request.param)
    made.max_length = 20
    return made


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), max_size=30))
def test_what_fits_is_what_the_encoder_reads_whole(short: Encoder, words: list[str]) -> None:
    text = " ".join(words)
    ruler = QueryRuler(short)
    spans = ruler.spans(text)
    longer = short.copy()
    longer.max_length = 500
    whole = longer.tokens([text], "query")[0]
    assert (len(spans) <= ruler.limit) == (short.tokens([text], "query")[0] == whole)
    assert len(spans) == len(whole) - (short.max_length - ruler.limit)
    assert all(0 <= start < end <= len(text) for start, end in spans)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.lists(st.sampled_from(WORDS), max_size=60))
def test_a_long_question_never_pushes_the_query_out(short: Encoder, question: list[str]) -> None:
    ruler = QueryRuler(short)
    sent = fitted([Part(" ".join(question), "start")], "kavron telmi", ruler)
    read = short.tokens([sent], "query")[0]
    longer = short.copy()
    longer.max_length = 500
    assert read == longer.tokens([sent], "query")[0]
    assert sent.endswith(" [SEP] kavron telmi") or sent == "kavron telmi"


def test_a_slow_tokenizer_has_no_ruler(short: Encoder) -> None:
    from agentic_r.data.corpus import Corpus
    from agentic_r.retriever.dense import DenseRetriever
    from agentic_r.types import Passage

    retriever = DenseRetriever.build(short, Corpus([Passage("a", "kavron")]), progress=False)
    assert retriever.ruler is not None
    assert retriever.ruler.limit < 20

    class Slow:
        is_fast = False

    retriever.encoder.tokenizer = Slow()
    assert retriever.ruler is None
