"""Tiny agents for benchmarks, taught lesson after lesson; what is there is not made again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentic_r.agent import tiny
from agentic_r.world.teacher import Lesson

ONE_HOP = Lesson(ks=(1,), gold=0.9, hops=1, confusing=0.7)
THREE_HOPS = Lesson(ks=(1,), gold=0.9, hops=3, confusing=0.7)


class Leg(NamedTuple):
    """A lesson, its optimiser steps and rate, and the share of them at which the rate falls."""

    lesson: Lesson
    steps: int
    rate: float
    decay_from: float = 0.999


def taught(folder: Path, legs: Sequence[Leg], *options: str) -> Path:
    """Teach an agent the legs in order, each from the last one's weights; returns its folder.

    `options` are of `agentic_r.agent.tiny`. A killed leg goes on, a finished one is kept.
    """
    start = ""
    for number, leg in enumerate(legs, 1):
        place = folder / f"leg-{number}"
        if not (place / "checkpoint" / "training.json").is_file():
            began = time.monotonic()
            given = ["--out", str(place), "--steps", str(leg.steps), "--examine", str(leg.steps)]
            given += ["--learning-rate", str(leg.rate), "--decay-from", str(leg.decay_from)]
            given += ["--start", start, "--level", "0"] if start else []
            tiny.train(tiny.parsed([*given, *options]), ((leg.lesson, 2.0),))
            took = time.monotonic() - began
            print(f"leg {number}: {leg.steps} steps in {took:.0f} s", flush=True)
        start = str(place / "state.pt")
    return place / "checkpoint"
