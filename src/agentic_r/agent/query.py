"""The one place that says which string the retriever is sent for an agent's query.

The same string is searched with in rollouts and trained on (`Search.sent`, `Example.query`). A
retriever reads only so many tokens. Where its `ruler` says that the parts do not fit, the context
is shortened and the query is kept; upstream cuts the end off, which is the query (contracts B2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec

from agentic_r.errors import ConfigError, DataError
from agentic_r.io import write_atomic
from agentic_r.protocols import SEPARATOR, Dialect, Retriever, Ruler
from agentic_r.types import Trajectory, Turn

Form = Literal["query", "question+query", "question+reasoning+query", "question+history+query"]
"""What the retriever is sent: the bare query, or with context in front of it."""

FORMS: tuple[str, ...] = get_args(Form)

QUERY_SHARE = 0.75
"""Share of the room that a query may take before context is left out altogether."""

FORM_FILE = "input.json"
"""Beside a trained model: the form of the strings that it was trained on."""

_TAG = re.compile(r"<[^<>]*>")


class Part(NamedTuple):
    """One part of a retriever input; a part that is too long loses its start or its end."""

    text: str
    keep: Literal["start", "end"]


def check(form: str) -> None:
    """Raise ConfigError where `form` is none of `FORMS`."""
    if form not in FORMS:
        known = ", ".join(f'"{name}"' for name in FORMS)
        raise ConfigError(f"retriever.input: got {form!r}, expected one of {known}")


def save_form(folder: Path, form: str) -> None:
    """Keep with a trained model which input it was trained with."""
    write_atomic(folder / FORM_FILE, msgspec.json.encode({"input": form}))


def read_form(folder: Path, default: str) -> str:
    """Return the input that the model in `folder` was trained with, `default` where it is not said.

    Raises DataError where the file is damaged, ConfigError for an unknown form.
    """
    path = folder / FORM_FILE
    if not path.is_file():
        return default
    try:
        form = msgspec.json.decode(path.read_bytes(), type=dict[str, str])["input"]
    except (msgspec.DecodeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); expected an input form") from None
    check(form)
    return form


def ruler_of(retriever: Retriever) -> Ruler | None:
    """Return what says how long the retriever's inputs may be; None where it reads all."""
    ruler: Ruler | None = getattr(retriever, "ruler", None)
    return ruler


def sent(
    trajectory: Trajectory,
    turn: Turn,
    query: str,
    form: str,
    ruler: Ruler | None = None,
    *,
    question: str | None = None,
    reasoning: str | None = None,
) -> str:
    """Return the exact retriever input for one query of `turn`, which follows `trajectory`.

    The parts of the form are joined by " [SEP] " (contracts B7); empty ones are left out.
    `question` is the question as the dialect puts it, by default its text; `reasoning` is what
    the agent thought before the query, by default `thought` of the turn; history are the queries
    of earlier turns, oldest first. With a `ruler` the result has at most its limit of tokens, and
    is the same as without wherever everything fits. Raises ConfigError for an unknown form.
    """
    check(form)
    parts = []
    if form != "query":
        parts.append(Part(trajectory.question.text if question is None else question, "start"))
    if form == "question+reasoning+query":
        parts.append(Part(thought(turn, query) if reasoning is None else reasoning, "end"))
    if form == "question+history+query":
        earlier = SEPARATOR.join(search.query for search in trajectory.searches)
        parts.append(Part(earlier, "end"))
    # The question is sent as it is, also where it is empty.
    context = [part for at, part in enumerate(parts) if part.text or at == 0]
    return fitted(context, query, ruler)


def sent_by(
    dialect: Dialect, trajectory: Trajectory, turn: Turn, query: str, form: str, ruler: Ruler | None
) -> str:
    """Return `sent` with question and reasoning as a dialect puts them, where it does."""
    question = getattr(dialect, "question", None)
    reasoning = getattr(dialect, "reasoning", None)
    return sent(
        trajectory,
        turn,
        query,
        form,
        ruler,
        question=question(trajectory.question) if question is not None else None,
        reasoning=reasoning(turn) if reasoning is not None else None,
    )


def sent_anew(
    trajectory: Trajectory, dialect: Dialect, form: str, ruler: Ruler | None
) -> Trajectory:
    """Return the trajectory with `sent` of every search in another form; what was found stays."""
    before = msgspec.structs.replace(trajectory, turns=())
    for turn in trajectory.turns:
        searches = tuple(
            msgspec.structs.replace(
                each, sent=sent_by(dialect, before, turn, each.query, form, ruler)
            )
            for each in turn.searches
        )
        again = msgspec.structs.replace(turn, searches=searches)
        before = msgspec.structs.replace(before, turns=(*before.turns, again))
    return before


def thought(turn: Turn, query: str) -> str:
    """Return what a turn says before its query, on one line and without tags."""
    text = turn.text
    before = text[: text.rfind(query)] if query and query in text else text
    return " ".join(_TAG.sub(" ", before).split())


def fitted(context: Sequence[Part], query: str, ruler: Ruler | None) -> str:
    """Join context and query; with a ruler, shortened to its limit.

    The query has up to `QUERY_SHARE` of the room before anything else, and what the context
    leaves. The context's parts have equal shares, and what one does not need goes to the others.
    A part without room is left out.
    """
    whole = SEPARATOR.join([*(part.text for part in context), query])
    # A token is at least one byte of text, so that short texts need not be measured.
    if ruler is None or len(whole.encode("utf-8", "replace")) <= ruler.limit:
        return whole
    if len(ruler.spans(whole)) <= ruler.limit:
        return whole
    room = ruler.limit
    while room > 0:
        text = _shortened(context, query, ruler, room)
        excess = len(ruler.spans(text)) - ruler.limit
        if excess <= 0:
            return text
        # Pieces of a text may have other tokens than the whole.
        room -= excess
    return ""


def _shortened(context: Sequence[Part], query: str, ruler: Ruler, room: int) -> str:
    """Join what of the parts has about `room` tokens in all."""
    room -= len(context) * len(ruler.spans(SEPARATOR))
    needs = [len(ruler.spans(part.text)) for part in context]
    need = len(ruler.spans(query))
    first = min(need, int(QUERY_SHARE * max(room, 0)))
    shares = _shares(needs, room - first)
    kept = [cut(part, share, ruler) for part, share in zip(context, shares, strict=True)]
    kept = [text for text in kept if text]
    if not kept:
        room += len(context) * len(ruler.spans(SEPARATOR))
    return SEPARATOR.join([*kept, cut(Part(query, "start"), room - sum(shares), ruler)])


def _shares(needs: Sequence[int], room: int) -> list[int]:
    """Share `room` out so that nobody has more than needed and the smallest needs are met first."""
    shares = [0] * len(needs)
    left = max(room, 0)
    for number, at in enumerate(sorted(range(len(needs)), key=lambda at: needs[at])):
        shares[at] = min(needs[at], left // (len(needs) - number))
        left -= shares[at]
    return shares


def cut(part: Part, tokens: int, ruler: Ruler) -> str:
    """Return at most `tokens` tokens of a text, of whole words where there is more than one."""
    spans = ruler.spans(part.text)
    if len(spans) <= tokens:
        return part.text
    if tokens < 1:
        return ""
    if part.keep == "start":
        end = spans[tokens - 1][1]
        text = part.text[:end]
        if not part.text[end].isspace() and " " in text.strip():
            text = text.rpartition(" ")[0]
    else:
        start = spans[-tokens][0]
        text = part.text[start:]
        if (
            start
            and not part.text[start - 1].isspace()
            and not text[0].isspace()
            and " " in text.strip()
        ):
            text = text.partition(" ")[2]
    return text.strip()
