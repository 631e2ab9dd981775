"""Ctrl-C and SIGTERM: what runs ends, closes what it has opened, and can go on later."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from agentic_r.waiting import end_waiting


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it kills: the same as Ctrl-C, with its own code."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end what runs inside as Ctrl-C does, so that it closes what it has opened.

    An event loop is told to end, as asyncio does at Ctrl-C. Elsewhere both are raised wherever the
    program is, and Python drops what is raised in a finaliser: that is sent anew. `serve` has
    handlers of its own. Outside the main thread, where none can be set,
    nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        if not end_waiting(Terminated()):
            raise Terminated

    told, anew = sys.unraisablehook, list[threading.Thread]()
    hooked = over = False

    def send(number: signal.Signals) -> None:
        while hooked and not over:  # what is raised in the hook is dropped too
            time.sleep(0.001)
        if not over:
            os.kill(os.getpid(), number)

    def dropped(lost: sys.UnraisableHookArgs) -> None:
        nonlocal hooked
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            told(lost)
            return
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        hooked = True
        try:
            sender = threading.Thread(target=send, args=(number,), daemon=True)
            sender.start()
            anew.append(sender)
        finally:
            hooked = False

    before = signal.signal(signal.SIGTERM, end)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = told
        over = True
        # One may have sent its signal a moment ago: it must not come in after the end.
        for each in anew:
            with suppress(KeyboardInterrupt):
                each.join()
        with suppress(KeyboardInterrupt):
            time.sleep(0.001)
        signal.signal(signal.SIGTERM, before)
