"""A progress bar over trajectories: questions, turns, searches and tokens per second, time left."""

from __future__ import annotations

import time

from tqdm import tqdm

from agentic_r.protocols import Completion
from agentic_r.types import Trajectory


class Progress:
    """Counts what a rollout does and shows it on a line of the terminal; silent without a name."""

    def __init__(self, total: int, name: str | None) -> None:
        self.turns = 0
        self.searches = 0
        self.tokens = 0
        self._told = True
        self._began = time.monotonic()
        self._bar = tqdm(total=total, desc=name, unit="q", disable=name is None)

    def turn(self, trajectory: Trajectory, completion: Completion) -> None:
        """Take in one turn."""
        self.turns += 1
        self.searches += len(trajectory.turns[-1].searches)
        if completion.new_tokens is None:
            self._told = False  # a model that does not count makes the sum worthless
        else:
            self.tokens += completion.new_tokens
        if not self._bar.disable:
            self._bar.set_postfix_str(self.said(), refresh=False)

    def ended(self, count: int) -> None:
        """Take in trajectories that ended."""
        self._bar.update(count)

    def said(self) -> str:
        """Say in a few words what was done so far."""
        seconds = max(1e-9, time.monotonic() - self._began)
        words = [f"{self.turns} turns", f"{self.searches} searches"]
        if self._told and self.tokens:
            words.append(f"{self.tokens / seconds:.0f} tokens/s")
        return ", ".join(words)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
