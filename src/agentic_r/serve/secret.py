"""Tokens, which are read from the environment and never from a file or the command line."""

from __future__ import annotations

import os

from agentic_r.errors import ConfigError


def secret(setting: str, variable: str) -> str:
    """Return what the environment variable holds, empty where none is named.

    Raises ConfigError where it is unset or cannot stand in a header.
    """
    if not variable:
        return ""
    token = os.environ.get(variable, "").strip()
    if not token or not token.isascii():
        raise ConfigError(
            f"{setting}: the environment variable {variable} is empty or not ASCII, "
            "expected the token in it"
        )
    return token
