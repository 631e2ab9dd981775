"""`--dry-run`: the settings and the stages that a verb would go through."""

from __future__ import annotations

import argparse

from agentic_r.config import Config, to_toml
from agentic_r.errors import DataError


def dry_run(options: argparse.Namespace, config: Config) -> None:
    """Print the settings as TOML, and the stages of the loop or the grid as comments below."""
    from agentic_r.evaluation.plan import wanted

    print(to_toml(config), end="")
    if options.verb == "evaluate" and wanted(config):
        _describe_grid(config)
        return
    if getattr(options, "examples", ""):
        print("\n# One stage:\n#   given/retriever")
        return
    from agentic_r.loop import stage_names
    from agentic_r.parts import require_questions

    if options.verb not in ("index", "search", "serve"):
        require_questions(config)
    print("\n# The stages of the loop, in order:")
    print("\n".join(f"#   {name}" for name in stage_names(config)))


def _describe_grid(config: Config) -> None:
    """Say what the grid would measure, without network; raises DataError for a missing file."""
    from agentic_r.evaluation.plan import describe, missing, plan

    found = plan(config)
    print("\n# The grid:")
    print("\n".join(f"# {line}" for line in describe(config, found)))
    gone = missing(config, found)
    if gone:
        raise DataError(f"{gone[0]}: there is no such file; check the path")
