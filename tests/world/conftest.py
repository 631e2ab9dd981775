"""The quickstart's worlds, made once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from agentic_r.settings import WorldConfig
from agentic_r.world import HELD_OUT, Pool, Sizes, World, generate

Worlds = Callable[..., World]


def quickstart_sizes() -> Sizes:
    config = WorldConfig()
    return Sizes(**{name: getattr(config, name) for name in Sizes.__annotations__})


@pytest.fixture(scope="session")
def worlds() -> Worlds:
    """Make the world of a seed and pool in the sizes of the quickstart, each once."""

    @cache
    def make(seed: int = 0, pool: Pool = HELD_OUT) -> World:
        return generate(seed, quickstart_sizes(), pool)

    return make


@pytest.fixture(scope="session")
def world(worlds: Worlds) -> World:
    return worlds()
