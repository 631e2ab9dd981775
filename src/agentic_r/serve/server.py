"""The process that serves: loads in the background, listens, reloads, and stops in good order.

SIGTERM and SIGINT: `/readyz` says 503 at once, what was accepted is finished, then the process
ends with 0; a second one ends it at once. SIGHUP: the newest index is opened and changed to.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvicorn

from agentic_r.errors import AgenticRError, RunError
from agentic_r.serve.http import ASGI, App
from agentic_r.serve.offer import Opener
from agentic_r.serve.routes import Service
from agentic_r.serve.secret import secret
from agentic_r.settings import ServeConfig

GRACE = 1.0
"""Seconds between the signal to stop and the end of listening: for load balancers to notice."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

log = logging.getLogger("agentic_r.serve")
Say = Callable[[str], None]


def serve(opener: Opener, config: ServeConfig, version: str, say: Say) -> None:
    """Serve over HTTP until a signal ends it; `say` hears the address and what happens.

    Raises what the opener raises at the start, and RunError where nothing can listen there.
    """
    token = secret("serve.token_env", config.token_env)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    with _listening(config) as listening:
        _Process(opener, config, version, token, say, listening).run()


def _listening(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise RunError(
            f"{config.host}:{config.port}: cannot listen there: {error.strerror or error}; "
            "choose another --port or --host"
        ) from None
    return listening


class _Process:
    """All that lives as long as the server listens."""

    def __init__(
        self,
        opener: Opener,
        config: ServeConfig,
        version: str,
        token: str,
        say: Say,
        listening: socket.socket,
    ) -> None:
        self.opener, self.config, self.version = opener, config, version
        self.token, self.say, self.listening = token, say, listening
        self.failed: Exception | None = None
        host = f"[{config.host}]" if ":" in config.host else config.host
        self.url = f"http://{host}:{listening.getsockname()[1]}"

    def run(self) -> None:
        """Serve until a signal ends it. Raises what the first loading raised."""
        settings = uvicorn.Config(
            self._app,  # made in the event loop, which its queue belongs to
            factory=True,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=round(self.config.timeout),
        )
        self.server = uvicorn.Server(settings)
        self.server.handle_exit = self._exit
        with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
            runner.run(self._main())
        if self.failed is not None:
            raise self.failed

    def _app(self) -> ASGI:
        return self.app

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopped = asyncio.Event()
        self.service = Service(self.opener, self.config)
        local = self.config.host in LOOPBACK
        mcp, keep = _mcp(self.service, self.version, self.url, local)
        self.app = App(self.service, self.version, token=self.token, local=local, mcp=mcp)
        self.loop.add_signal_handler(signal.SIGHUP, self._reload)
        self.say(f"listening on {self.url} (API: {self.url}/docs)")
        if not local and not self.token:
            self.say("anyone who can reach this address can search: set serve.token_env")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._load())
            if keep is not None:
                tasks.create_task(keep(self.stopped))
            await self.server.serve([self.listening])
            self.stopped.set()
            await asyncio.to_thread(self.service.batcher.close)

    async def _load(self) -> None:
        try:
            served = await self.service.load()
        except Exception as error:
            self.failed = error
            self.server.should_exit = True
            return
        names = ", ".join(offer.name for offer in served.offers)
        engine = f"; queries in {served.main.engine}" if served.main.engine else ""
        self.say(f"ready: {len(served.corpus):,} passages, retrievers: {names}{engine}")

    def _reload(self) -> None:
        task = self.loop.create_task(self._reloaded())
        task.add_done_callback(lambda done: done.exception())

    async def _reloaded(self) -> None:
        try:
            served = await self.service.load()
        except AgenticRError as error:
            log.error("not reloaded: %s", error)
        except Exception:
            log.exception("not reloaded")
        else:
            self.say(f"reloaded: {served.main.name}, version {served.version}")

    def _exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal in good order, at the second at once."""
        if self.service.draining:
            self.server.should_exit = self.server.force_exit = True
            return
        self.service.draining = True
        self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self.say("stopping: finishing what was accepted")
        self.loop.call_later(GRACE, self._end)

    def _end(self) -> None:
        self.stopped.set()
        self.server.should_exit = True


def _mcp(
    service: Service, version: str, url: str, local: bool
) -> tuple[ASGI | None, Callable[[asyncio.Event], Coroutine[Any, Any, None]] | None]:
    """Return the application for `/mcp` and what keeps it going; None where it is not installed."""
    try:
        from agentic_r.serve.mcp import over_http
    except ModuleNotFoundError:
        return None, None
    return over_http(service, version, url, local)
