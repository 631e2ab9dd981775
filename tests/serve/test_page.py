"""The web page in headless Chromium: search, compare, walk, and nothing from passages runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn
from tests.serve.process import TRAPS, process, write_config

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
SHOTS = os.environ.get("AGENTIC_R_SHOTS", "")
"""Folder for pictures of the page, for a person to look at; empty: none are made."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium"),
]


def write_run(folder: Path) -> None:
    """Write one stage of 120 trajectories, of which the second holds markup everywhere."""
    stage = folder / "iteration-1" / "rollouts"
    stage.mkdir(parents=True)
    rows = []
    for at in range(120):
        bad = TRAPS[0] if at == 1 else "ada"
        hits = tuple(
            Hit(
                Passage(f"{bad}{n}", f"{bad} was born in the city of {n}", f"{bad} {n}"),
                0.9 - n / 9,
            )
            for n in range(2)
        )
        search = Search(f"city of {bad}", f"where was {bad} born? [SEP] city of {bad}", hits)
        text = f"<think> first the city </think>\n<search> city of {bad} </search>"
        shown = "\n<information>Doc 1(Title: T1) Ada was born</information>\n"
        turns = (
            Turn(text, "search", (search,), None, shown),
            Turn(f"<answer> {bad} </answer>", "answer", (), bad),
        )
        question = Question(f"q{at}", f"where was {bad} {at} born?", ("ada",))
        rows.append(Trajectory(f"t{at}", question, turns, "answered"))
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    (stage / "trajectories.jsonl").write_bytes(lines)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    config = write_config(folder)
    write_run(folder / "runs" / "run")
    with process(config) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Any, url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page that fails its test where it logs an error or asks another server."""
    opened = browser.new_page(color_scheme=request.param, viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    opened.on("request", lambda r: None if r.url.startswith(url) else complaints.append(r.url))
    opened.complaints = complaints
    opened.goto(url)
    opened.wait_for_selector("#left option", state="attached")
    yield opened
    assert complaints == []
    assert opened.title() == "agentic-r"
    opened.close()


def picture(page: Any, name: str) -> None:
    if SHOTS:
        scheme = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        page.screenshot(path=f"{SHOTS}/{name}-{'dark' if scheme else 'light'}.png")


def search(page: Any, query: str, question: str = "", beside: str = "untouched") -> None:
    page.fill("#query", query)
    page.fill("#question", question)
    page.select_option("#right", beside)
    page.fill("#topk", "42")
    page.click("#form button")
    page.wait_for_selector(".hit")


def test_searching_side_by_side(page: Any) -> None:
    assert "42 passages" in page.inner_text("#about")
    search(page, "born in the city of 7", "where was ada born?")
    assert page.locator("#columns section").count() == 2
    assert page.locator("#columns section").first.locator(".hit").count() == 42
    assert "city" in {each.lower() for each in page.locator(".hit mark").all_inner_texts()}
    assert "sent: born in the city of 7" in page.locator(".sent").first.inner_text()
    picture(page, "search")


def test_markup_in_passages_stays_text(page: Any) -> None:
    search(page, TRAPS[1], beside="")
    assert page.locator("#columns script, #columns img").count() == 0
    texts = page.locator("#columns section").first.inner_text()
    assert TRAPS[0] in texts
    assert TRAPS[1] in texts


TAGS = (
    *("script", "img", "svg", "iframe", "object", "embed", "video"),
    *("audio", "body", "details", "input", "math", "style", "a"),
)
HANDLERS = ("src=x onerror", "onload", "onfocus autofocus", "ontoggle open", "href")
PAYLOADS = [
    f"{opening}<{tag} {handler}=\"document.title='x'\">document.title='x'</{tag}>"
    for number, tag in enumerate(TAGS)
    for opening in ("", '">', "</mark></p>", "<!--")
    for handler in [HANDLERS[number % len(HANDLERS)]]
]


def test_fifty_six_payloads_stay_text_where_hits_are_shown(page: Any) -> None:
    assert len(set(PAYLOADS)) == 56
    shown = page.evaluate(
        """async (payloads) => {
            const { hit, wordsOf } = await import("/page.js");
            const place = document.createElement("ol");
            document.body.append(place);
            for (const text of payloads) {
                const found = { id: text, title: text, text, score: 1 };
                place.append(hit(found, 1, wordsOf(text), text));
            }
            const bad = [...place.querySelectorAll("*")].filter(
                (e) => !["LI", "HEADER", "SPAN", "H4", "MARK", "P"].includes(e.tagName)
                    || [...e.attributes].some((a) => a.name !== "class"));
            return [bad.map((e) => e.outerHTML), place.textContent];
        }""",
        PAYLOADS,
    )
    assert shown[0] == []
    assert all(text in shown[1] for text in PAYLOADS)
    page.wait_for_timeout(200)
    assert page.title() == "agentic-r"


def test_walking_through_the_run(page: Any) -> None:
    page.click("#to-run")
    page.wait_for_selector("#rows button")
    assert page.inner_text("#where") == "1 to 50 of 120"
    page.click("#after")
    page.wait_for_selector("#where:has-text('51 to 100')")
    page.click("#before")
    page.wait_for_selector("#where:has-text('1 to 50 of')")
    page.locator("#rows button").first.click()
    page.wait_for_selector(".turn")
    assert page.locator(".turn").count() == 2
    assert page.locator("#trajectory .hit").count() == 2
    assert "right" in page.locator("#trajectory h3").inner_text()
    page.click("summary")
    assert "<information>" in page.inner_text(".seen")
    picture(page, "run")
    page.locator("#rows button").nth(1).click()
    page.wait_for_selector("#trajectory h3:has-text('script')")
    assert page.locator("#trajectory script").count() == 0


def test_it_can_be_used_without_a_mouse_and_by_a_screen_reader(page: Any) -> None:
    page.focus("#query")
    page.keyboard.type("city of 3")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).length"
    )
    assert unnamed == 0
    page.set_viewport_size({"width": 360, "height": 740})
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    picture(page, "narrow")


def test_what_goes_wrong_is_said(page: Any) -> None:
    page.fill("#query", "x" * 40_000)
    page.click("#form button")
    page.wait_for_selector("#problem:not([hidden])")
    assert "at most 32768" in page.inner_text("#problem")
    [logged] = page.complaints
    assert "422" in logged
    page.complaints.clear()
