from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from agentic_r.evaluation.cases import Case
from agentic_r.evaluation.compare import Compared
from agentic_r.evaluation.page import duration, forest, number, percent, points, render
from agentic_r.evaluation.report import (
    Labelling,
    Point,
    Report,
    StageTime,
    write_report,
)

AFTER, BEFORE = "iteration 2, k=2", "untouched question+query, k=2"
VOID = {"meta", "link", "br", "hr", "img", "input", "line", "polyline"}


class Page(HTMLParser):
    """Reads a page strictly: tags have to nest; collects tags, attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_the_page_is_well_formed_and_holds_every_number(tmp_path: Path, report: Report) -> None:
    _, path = write_report(tmp_path, report)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    for row in report.rows:
        assert row.name in page.text and percent(row.em) in page.text
    for shown in ("+17.4", "+12.9 to +22.1", "55%", "27 820", "no correct candidate", "92.0%"):
        assert shown in page.text.replace("\u202f", " ")
    for word in ("search agent", "retriever", "Exact match", "hit@3", "oracle", "95% interval"):
        assert word in page.text
    for shown in ("18 204 118", "2 310 455", "4.117", "3 not counted", "1 305", "0.284"):
        assert shown in page.text.replace("\u202f", " ")
    assert "1 hop" in page.text and "unseen wording" in page.text and "labels" in page.text
    assert page.tags.count("polyline") == 7 and page.tags.count("article") == 1


def test_the_page_needs_nothing_from_outside(report: Report) -> None:
    html = render(report)
    page = Page(html)
    for banned in ("script", "link", "img", "iframe", "object", "embed", "base", "form"):
        assert banned not in page.tags
    for name, value in page.attributes:
        assert name not in ("src", "href", "srcset", "xlink:href") and not name.startswith("on")
        assert "url(" not in value
    assert "@import" not in html and "url(" not in html and "http://" not in html
    assert "https://" not in html and "default-src 'none'" in html


def with_text(case: Case, text: str) -> Case:
    """The case with another text in its first labelled passage."""
    labelled = case.labels[0]
    first = msgspec.structs.replace(labelled.passages[0], title=text, text=text, reason=text)
    changed = msgspec.structs.replace(
        labelled, query=text, sent=text, outcome=text, passages=[first, *labelled.passages[1:]]
    )
    return msgspec.structs.replace(case, labels=[changed])


HOSTILE = [
    "<script>alert(1)</script>",
    "</table></main><h1>gotcha</h1>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "</style><style>*{display:none}",
    "<!-- never closed",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(text: str, report: Report) -> None:
    case = with_text(report.cases[0], text)
    hit = msgspec.structs.replace(case.before.searches[0].hits[0], title=text, text=text)
    search = msgspec.structs.replace(case.before.searches[0], query=text, hits=[hit])
    bad = msgspec.structs.replace(case.before, name=text, answer=text, stop=text, searches=[search])
    case = msgspec.structs.replace(
        case, question=text, answers=[text], before=bad, after=bad, split=text, why=text
    )
    rename = {AFTER: text, BEFORE: f"{text} too"}
    hostile = msgspec.structs.replace(
        report,
        name=text,
        machine=text,
        setup=msgspec.structs.replace(report.setup, agent=text, corpus=text, judge=text),
        rows=[
            msgspec.structs.replace(
                row, name=rename.get(row.name, row.name), em_by_hops={text: 0.5}
            )
            for row in report.rows
        ],
        gain=msgspec.structs.replace(report.gain, name=text, over=f"{text} too"),
        comparisons=[Compared(text, f"{text} too", text, 0.1, 0.0, 0.2, 4, 2)],
        drops=[{text: 3}],
        failures=[{text: 3}],
        stages=[StageTime(text, 1.0)],
        settings={text: text},
        limits=[text],
        cases=[case],
    )
    page = Page(render(hostile))
    calm = Page(render(report))
    assert page.open == [] and set(page.tags) <= set(calm.tags)
    assert page.tags.count("h1") == page.tags.count("style") == 1
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count(" ".join(text.split())) >= 15


def test_long_passages_are_clipped(report: Report) -> None:
    html = render(
        msgspec.structs.replace(report, cases=[with_text(report.cases[0], "word " * 4000)])
    )
    assert "…" in html and len(html) < 60_000


def test_the_headline_says_what_the_interval_allows(report: Report) -> None:
    def title(low: float, high: float) -> str:
        changed = msgspec.structs.replace(report.gain, em=(low + high) / 2, low=low, high=high)
        html = render(msgspec.structs.replace(report, gain=changed))
        return html.split("<h1>")[1].split("</h1>")[0]

    assert "answers more questions" in title(0.02, 0.1)
    assert "answers fewer questions" in title(-0.1, -0.02)
    assert "chance" in title(-0.02, 0.1)


def test_a_bare_report_renders_without_the_missing_parts(tmp_path: Path, report: Report) -> None:
    rows = [
        msgspec.structs.replace(
            row,
            tokens=None,
            prompt_tokens=None,
            cost=None,
            hit_at_3=None,
            em_seen=None,
            em_unseen=None,
            em_by_hops={},
            n_by_hops={},
        )
        for row in report.rows
        if row.name in (AFTER, BEFORE)
    ]
    bare = Report("own", 3, report.setup, rows, report.gain, [], [])
    _, path = write_report(tmp_path, bare)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == [] and "polyline" not in page.tags and "article" not in page.tags
    assert "tokens" not in page.text and "servers" not in page.text
    assert "oracle" not in page.text and "Side by side" not in page.text
    assert "\N{EN DASH}" in page.text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("query", "It reads the agent's query. All"),
        ("question+query", "question together with the agent's query ( question [SEP] query )"),
        (
            "question+reasoning+query",
            "question, what the agent thought before it searched, together with the agent's query "
            "( question [SEP] reasoning [SEP] query )",
        ),
    ],
)
def test_what_the_retriever_reads_is_what_was_set(report: Report, form: str, said: str) -> None:
    setup = msgspec.structs.replace(report.setup, input=form)
    assert said in Page(render(msgspec.structs.replace(report, setup=setup))).text


def test_calls_of_a_judge_are_shown_where_there_were_any(report: Report) -> None:
    text = Page(render(report)).text.replace("\u202f", " ")
    assert "calls for relevance calls for sub-answers calls a kept search" in text
    assert "1 402 410 3.00" in text and "1 511 0 1.86" in text
    free = [Labelling(10, 4, 20, 200), Labelling(10, 4, 20, 200)]
    assert "calls for" not in Page(render(msgspec.structs.replace(report, labelling=free))).text
    none = [Labelling(10, 0, 20, 200, judge_calls=12)]
    text = Page(render(msgspec.structs.replace(report, labelling=none))).text
    assert "12 0 \N{EN DASH}" in text


def test_failures_stand_beside_the_drops_where_there_are_any(report: Report) -> None:
    page = Page(render(report))
    said = "iteration 1: relevance failed: the relevance could not be read 37 , correctness failed"
    assert said in page.text and "makes no passage a positive" in page.text
    for failures in ([], [{}, {}]):
        text = Page(render(msgspec.structs.replace(report, failures=failures))).text
        assert "could not be judged" not in text and "no correct candidate" in text
    many = [{f"correctness failed: request {n:03} {'x' * 500}": 1 + n // 99 for n in range(100)}]
    page = Page(render(msgspec.structs.replace(report, failures=many)))
    assert page.text.count("failed: request") == 5 and "request 099" in page.text
    assert "for other reasons 95" in page.text and "x" * 201 not in page.text


def test_extreme_values_are_drawn(report: Report) -> None:
    zero = [Compared(AFTER, BEFORE, "em", 0.0, 0.0, 0.0, 4, 2)]
    odd = msgspec.structs.replace(
        report.curves[0], points=[Point(1, float("nan")), Point(2, 0.0), Point(3, 0.0)]
    )
    changed = msgspec.structs.replace(
        report,
        comparisons=zero,
        curves=[odd, msgspec.structs.replace(odd, points=[])],
        labelling=[Labelling(0, 0, 0, 0), Labelling(10, 10, 200, 200)],
        stages=[StageTime("index", 0.0)],
    )
    assert Page(render(changed)).open == []


def test_positions_lie_on_the_axis(report: Report) -> None:
    drawn = forest(report.comparisons)
    assert drawn is not None
    for line in drawn["lines"]:
        assert 0 <= line["left"] <= line["dot"] <= line["left"] + line["width"] <= 100
    assert ("0" in [label for _, label in drawn["ticks"]]) and forest([]) is None


def test_numbers_are_written_for_people() -> None:
    assert percent(0.4125) == "41.2%" and percent(None) == "\N{EN DASH}"
    assert points(0.174) == "+17.4" and points(-0.08) == "\N{MINUS SIGN}8.0"
    assert number(27820) == "27\u202f820" and number(999) == "999"
    times = [duration(s) for s in (0.42, 48.2, 125, 780, 11400)]
    assert times == ["0.4 s", "48 s", "2 min 05 s", "13 min", "3 h 10 min"]
