"""Settings on the command line: `--a.b value`, anywhere behind the verb."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.config import config_fields
from agentic_r.errors import ConfigError

WITHOUT_CONFIG = ("status", "report", "convert")
"""Verbs that look at runs and files alone, and know no settings."""


def settings_apart(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Take the settings, each with its value, out of what was typed, wherever they stand.

    argparse knows no settings and would take the value of one for a word that it waits for.
    Raises ConfigError for a setting without a value.
    """
    if not arguments or arguments[0] in WITHOUT_CONFIG:
        return [], list(arguments)
    plain = {field.key for field in config_fields() if "." not in field.key}
    pairs: list[tuple[str, str]] = []
    others: list[str] = []
    items = iter(arguments)
    for item in items:
        if item == "--":
            return pairs, [*others, item, *items]
        key, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--") or not ("." in key or key in plain):
            others.append(item)
            continue
        if not equals:
            value = next(items, "--")
            if value.startswith("--"):
                raise ConfigError(f"--{key} has no value; write --{key} VALUE")
        pairs.append((key, value))
    return pairs, others


def overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """Read `--a.b value` and `--a.b=value` pairs. Raises ConfigError for anything else."""
    pairs: list[tuple[str, str]] = []
    items = iter(rest)
    for item in items:
        if not item.startswith("--"):
            raise ConfigError(f"got {item!r}, expected a setting such as --retriever.k 3")
        key, equals, value = item.removeprefix("--").partition("=")
        if not equals:
            found = next(items, None)
            if found is None:
                raise ConfigError(f"--{key} has no value; write --{key} VALUE")
            value = found
        pairs.append((key, value))
    return pairs
