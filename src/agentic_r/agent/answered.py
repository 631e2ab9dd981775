"""What servers have answered, on the disk: a request answered once is never paid for twice.

One JSON line an answer, keyed by model, prompt, sampling and sample number. A line is appended
with one write before the answer is used, so a killed process loses none that it acted on; a torn
last line is cut off. Whether the disk itself loses power is not guarded against.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import msgspec

from agentic_r.errors import RunError
from agentic_r.io import decode_line
from agentic_r.protocols import Completion, Prompt, Sampling


class Usage(msgspec.Struct):
    """What was asked of servers: requests, tokens read and written, answers used again.

    `untold` counts the answers whose tokens the server did not count. `cost` is in the unit of
    the prices; it is 0 without prices.
    """

    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    untold: int = 0
    reused: int = 0
    cost: float = 0.0

    def add(self, done: Completion, price: tuple[float, float]) -> None:
        """Count one answer; `price` is per million tokens read and written."""
        self.requests += 1
        if done.prompt_tokens is None or done.new_tokens is None:
            self.untold += 1
            return
        self.prompt_tokens += done.prompt_tokens
        self.new_tokens += done.new_tokens
        self.cost += (done.prompt_tokens * price[0] + done.new_tokens * price[1]) / 1e6


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer on the disk."""

    key: str
    answer: Completion


class Answered:
    """The answers of a model so far; `path` None keeps none and only counts.

    Raises DataError with file and line where the file is damaged other than at its end.
    """

    def __init__(
        self, path: Path | str | None = None, price: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.path = None if path is None else Path(path)
        self.price = price
        self.usage = Usage()
        self._samples: Counter[str] = Counter()
        self._places: dict[str, tuple[int, int]] = {}
        self._file: int | None = None
        self._size = 0
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def key(self, model: str, prompt: Prompt, sampling: Sampling) -> str:
        """Name a request; one that is drawn without a seed is another sample each time."""
        raw = msgspec.json.encode((model, type(prompt).__name__, prompt, sampling))
        digest = hashlib.sha256(raw).hexdigest()[:40]
        if sampling.temperature <= 0 or sampling.seed is not None:
            return digest
        self._samples[digest] += 1
        return f"{digest}#{self._samples[digest]}"

    def find(self, key: str) -> Completion | None:
        """Return what was answered before, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        self.usage.reused += 1
        raw = os.pread(self._open(), place[1], place[0])
        return msgspec.json.decode(raw, type=Line).answer

    def add(self, key: str, answer: Completion) -> None:
        """Write an answer down. Raises RunError where the disk refuses."""
        self.usage.add(answer, self.price)
        if self.path is None:
            return
        raw = msgspec.json.encode(Line(key, answer)) + b"\n"
        try:
            if os.write(self._open(), raw) != len(raw):
                raise OSError(28, "no space left on the disk")
        except OSError as error:
            os.truncate(self._open(), self._size)
            raise RunError(
                f"{self.path}: an answer cannot be written down: {error.strerror}; make room and "
                "run the same command again"
            ) from error
        self._places[key] = (self._size, len(raw) - 1)
        self._size += len(raw)

    def close(self) -> None:
        """Bring the answers to the disk and close the file; it is opened again where needed."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            assert self.path is not None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        return self._file

    def _read(self, path: Path) -> None:
        decoder = msgspec.json.Decoder(Line)
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    break  # torn by a kill
                line = decode_line(path, number, raw.rstrip(b"\n"), decoder)
                self._places[line.key] = (self._size, len(raw) - 1)
                self._size += len(raw)
                self.usage.add(line.answer, self.price)
        if self._size < path.stat().st_size:
            os.truncate(path, self._size)
