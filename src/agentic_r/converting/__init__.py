"""`agentic-r convert NAME`: other systems' files into ours and ours into theirs.

A conversion is a module of this package: one sentence ABOUT it, its `options` and its `run`. It is
registered by its name in the tuple below; "-" is "_" in the module's name.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Protocol, cast

CONVERSIONS = (
    "chunk",
    "examples",
    "index",
    "upstream-examples",
    "upstream-files",
    "upstream-trajectories",
)


class Conversion(Protocol):
    """What a module of this package has; it is imported for `--help`, so it must be light."""

    ABOUT: str

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        ...

    def run(self, options: argparse.Namespace) -> None:
        """Convert, and print what was done."""
        ...


def conversion(name: str) -> Conversion:
    """Return a registered conversion."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    return cast(Conversion, module)


def add_conversions(parser: argparse.ArgumentParser) -> None:
    """Give the verb `convert` a word for each conversion."""
    parsers = parser.add_subparsers(
        dest="conversion", required=True, metavar="WHAT", parser_class=type(parser)
    )
    for name in CONVERSIONS:
        found = conversion(name)
        added = parsers.add_parser(name, help=found.ABOUT, description=found.ABOUT)
        found.options(added)
        added.set_defaults(function=found.run)
