"""The tiny agent for tests that need one that was trained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentic_r.agent.agent import tiny_checkpoint
from agentic_r.errors import ConfigError


def checkpoint() -> Path | None:
    """Return the folder of the packaged agent, or of the one that AGENTIC_R_TEST_AGENT names."""
    try:
        return Path(os.environ.get("AGENTIC_R_TEST_AGENT") or tiny_checkpoint())
    except ConfigError:
        return None


needs_tiny = pytest.mark.skipif(
    checkpoint() is None,
    reason="the packaged checkpoint agentic_r/checkpoints/tiny-agent is missing",
)
