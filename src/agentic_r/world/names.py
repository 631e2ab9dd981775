"""Invented names: two-syllable words, split for ever into two pools that share no word.

The agent's checkpoint is trained on worlds of the pool `AGENT`, everything that is reported
runs on the pool `HELD_OUT`; a word belongs to one of them by a digest of its letters, so the
pools are disjoint whatever the seed and whatever the process.
"""

from __future__ import annotations

import hashlib
import random
from itertools import product
from typing import Literal

Pool = Literal["agent", "held-out"]
AGENT: Pool = "agent"
HELD_OUT: Pool = "held-out"

FIRST = [
    "Bal",
    "Bar",
    "Bel",
    "Bor",
    "Bran",
    "Cal",
    "Cor",
    "Dal",
    "Dar",
    "Del",
    "Dor",
    "Dun",
    "Fal",
    "Fen",
    "Fir",
    "Gal",
    "Gar",
    "Gel",
    "Gor",
    "Hal",
    "Har",
    "Hel",
    "Hol",
    "Jar",
    "Jor",
    "Kal",
    "Kar",
    "Kel",
    "Kor",
    "Lan",
    "Lar",
    "Lor",
    "Lun",
    "Mal",
    "Mar",
    "Mel",
    "Mir",
    "Mor",
    "Nal",
    "Nor",
    "Ol",
    "Or",
    "Pal",
    "Per",
    "Pol",
    "Ral",
    "Ren",
    "Ros",
    "Sal",
    "Sar",
    "Sel",
    "Sor",
    "Tal",
    "Tar",
    "Tel",
    "Tor",
    "Tul",
    "Val",
    "Var",
    "Ven",
    "Vol",
    "Wal",
    "Wen",
    "Zar",
]
SECOND = [
    "ba",
    "bek",
    "bin",
    "da",
    "den",
    "din",
    "do",
    "fa",
    "fen",
    "ga",
    "gen",
    "go",
    "ka",
    "ken",
    "kin",
    "ko",
    "la",
    "len",
    "lin",
    "lo",
    "ma",
    "men",
    "min",
    "mo",
    "na",
    "nek",
    "nin",
    "no",
    "pa",
    "pen",
    "pin",
    "ra",
    "rek",
    "rin",
    "ro",
    "sa",
    "sen",
    "sin",
    "so",
    "ta",
    "ten",
    "tin",
    "to",
    "va",
    "ven",
    "vik",
    "vin",
    "vo",
    "za",
    "zen",
    "zik",
    "zo",
]


def pool_of(word: str) -> Pool:
    """Return the pool that a name word belongs to, by a digest of its letters."""
    digest = hashlib.md5(word.lower().encode(), usedforsecurity=False).digest()
    return AGENT if digest[0] % 2 else HELD_OUT


def words(pool: Pool) -> list[str]:
    """Return every name word of a pool, in a fixed order."""
    return [a + b for a, b in product(FIRST, SECOND) if pool_of(a + b) == pool]


class Namer:
    """Draws names from one pool, each at most once."""

    def __init__(self, pool: Pool, rng: random.Random) -> None:
        self._words = words(pool)
        self._rng = rng
        self._used: set[str] = set()

    def draw(self, parts: int) -> str:
        """Return a new name of `parts` words."""
        while True:
            name = " ".join(self._rng.choice(self._words) for _ in range(parts))
            if name not in self._used:
                self._used.add(name)
                return name
