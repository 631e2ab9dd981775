from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentic_r.data.hub import HubFile, at_hand, fetched, hub_file
from agentic_r.errors import DataError, MissingExtraError

ADDRESS = "hf://datasets/owner/set/nq/test.jsonl"


def in_cache(cache: Path, repo: str, path: str, text: str) -> None:
    """Lay a file down as the hub's client keeps it: a commit, and `main` pointing at it."""
    folder = cache / repo
    file = folder / "snapshots" / ("a" * 40) / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("questions.jsonl", None),
        ("hub/questions.jsonl", None),
        (ADDRESS, HubFile("dataset", "owner/set", "", "nq/test.jsonl")),
        ("hf://owner/model/config.json", HubFile("model", "owner/model", "", "config.json")),
        ("hf://datasets/o/s@v1.0/a.gz", HubFile("dataset", "o/s", "v1.0", "a.gz")),
    ],
)
def test_addresses(where: str, found: HubFile | None) -> None:
    assert hub_file(where) == found


@pytest.mark.parametrize("where", ["hf://", "hf://datasets/owner/set", "hf://owner/model/"])
def test_half_an_address(where: str) -> None:
    with pytest.raises(DataError, match=r"without a file, expected hf://datasets/OWNER/NAME/PATH"):
        hub_file(where)


def test_a_path_is_left_alone(tmp_path: Path) -> None:
    missing = tmp_path / "no.jsonl"
    assert fetched(str(missing)) == missing
    assert not at_hand(str(missing))
    missing.touch()
    assert at_hand(str(missing))


def test_offline_the_cache_is_read_and_what_it_lacks_is_named(cache: Path) -> None:
    assert not at_hand(ADDRESS)
    with pytest.raises(DataError, match=rf"{ADDRESS}: the hub cannot be reached .* HF_HUB_OFFLINE"):
        fetched(ADDRESS)
    in_cache(cache, "datasets--owner--set", "nq/test.jsonl", "here")
    assert at_hand(ADDRESS)
    assert fetched(ADDRESS).read_text() == "here"


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"agentic-r\[local\]"):
        fetched(ADDRESS)
