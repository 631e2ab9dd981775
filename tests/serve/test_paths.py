"""Ids and stages are keys that are looked up: no spelling of a path leads to a file."""

from __future__ import annotations

import asyncio
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from agentic_r.serve.routes import Service
from agentic_r.settings import ServeConfig
from tests.serve.conftest import Make, served

SECRET = "the secret of the machine"

SPELLINGS = [
    "secret.txt",
    "./secret.txt",
    "../secret.txt",
    "../../secret.txt",
    "run/../secret.txt",
    "run/../../secret.txt",
    "..\\secret.txt",
    "..%2fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "..%252fsecret.txt",
    "%252e%252e%252fsecret.txt",
    "....//secret.txt",
    "..;/secret.txt",
    "..%00/secret.txt",
    "secret.txt%00",
    "secret.txt%00.jsonl",
    "%c0%ae%c0%ae/secret.txt",
    "..%c0%afsecret.txt",
    "\uff0e\uff0e/secret.txt",
    "..\u2215secret.txt",
    "/secret.txt",
    "//secret.txt",
    "file:///secret.txt",
    "file://localhost/secret.txt",
    "~/secret.txt",
    "$HOME/secret.txt",
    "{secret.txt}",
    "*.txt",
    "link",
    "link/secret.txt",
    "/proc/self/environ",
    "../../../../etc/passwd",
    "C:\\secret.txt",
    "\\\\host\\share\\secret.txt",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with files beside it, in it, and links out of it; it is where the process works."""
    run = tmp_path / "run"
    (run / "iteration-1" / "rollouts").mkdir(parents=True)
    for place in (tmp_path, run, run / "iteration-1"):
        (place / "secret.txt").write_text(SECRET)
    (run / "link").symlink_to(tmp_path)
    monkeypatch.chdir(run)
    monkeypatch.setenv("HOME", str(run))
    return run


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_id_and_no_stage_is_a_path(make: Make, folder: Path, spelling: str) -> None:
    client = make(what=served(run=folder)[0])
    absolute = spelling.replace("/secret.txt", f"{folder}/secret.txt", 1)
    for text in (spelling, absolute):
        quoted = urllib.parse.quote(text, safe="%/\\;:~*$")
        whole = urllib.parse.quote(text, safe="")
        for path in (
            f"/passages/{quoted}",
            f"/passages/{whole}",
            f"/{quoted.lstrip('/')}",
            f"/passages/p1?version={whole}",
            f"/run/trajectories?stage={whole}&start=0",
            f"/run/trajectory?stage={whole}&row=0",
        ):
            reply = client.get(path)
            assert reply.status_code in (400, 404, 405, 410, 422), path
            assert SECRET not in reply.text


def test_no_id_is_a_path_for_tools_either(folder: Path) -> None:
    mcp = pytest.importorskip("mcp")
    from agentic_r.serve.mcp import tools

    async def work() -> list[Any]:
        service = Service(lambda: served(run=folder)[0], ServeConfig())
        await service.load()
        try:
            async with mcp.Client(tools(service, "0", "http://localhost:1")) as client:
                return [await client.call_tool("fetch", {"id": each}) for each in SPELLINGS]
        finally:
            service.batcher.close()

    for reply in asyncio.run(work()):
        assert reply.is_error
        assert SECRET not in reply.content[0].text
