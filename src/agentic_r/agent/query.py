"""The one place that says which string the retriever is sent for an agent's query."""

from __future__ import annotations

from typing import Literal

from agentic_r.errors import ConfigError
from agentic_r.protocols import SEPARATOR

Form = Literal["query", "question+query"]
"""How a search is put to the retriever: the bare query, or the question in front of it."""


def sent(question_text: str, query: str, form: str) -> str:
    """Return the exact retriever input for one search.

    `form` "query" gives the query, "question+query" gives "QUESTION [SEP] QUERY" (contracts B7:
    training and rollouts use the same string). Raises ConfigError for another form.
    """
    if form == "query":
        return query
    if form == "question+query":
        return f"{question_text}{SEPARATOR}{query}"
    raise ConfigError(f'got retriever input {form!r}, expected "query" or "question+query"')
