"""The string that the retriever is sent."""

from __future__ import annotations

import pytest

from agentic_r.agent.query import sent
from agentic_r.errors import ConfigError


def test_both_forms() -> None:
    assert sent("Who is it?", "the man", "query") == "the man"
    assert sent("Who is it?", "the man", "question+query") == "Who is it? [SEP] the man"


def test_another_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="'history', expected"):
        sent("a", "b", "history")
