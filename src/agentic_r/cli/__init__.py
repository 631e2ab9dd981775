"""The command line: what can be typed (`parser`), what each verb does, how an error is told."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from agentic_r.cli.interrupt import Terminated, terminable
from agentic_r.cli.parser import build_parser
from agentic_r.cli.planned import dry_run
from agentic_r.cli.settings import WITHOUT_CONFIG, overrides, settings_apart
from agentic_r.config import load_config
from agentic_r.errors import AgenticRError, ConfigError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 an error in one line, 2 wrong usage.

    130 and 143: stopped by Ctrl-C or SIGTERM.
    Under `torchrun` the first process runs the verb and the others train with it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from agentic_r.training.jobs import dismiss, work

        if int(os.environ.get("RANK", "0")) > 0:
            return work()
        code = _verb(arguments)
        if not code:  # after an error, torchrun ends the others
            dismiss()
        return code
    return _verb(arguments)


def _verb(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        pairs, others = settings_apart(given)
        options, rest = parser.parse_known_args(others)
        with terminable():
            _done(parser, options, pairs, rest)
    except AgenticRError as error:
        print(f"agentic-r: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("\nagentic-r: stopped; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"agentic-r: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _done(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    pairs: list[tuple[str, str]],
    rest: list[str],
) -> None:
    """Do what was asked for."""
    if options.verb in WITHOUT_CONFIG:
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.function(options)
        return
    _refuse_stray(options)
    config = load_config(options.config, [*pairs, *overrides(rest)])
    if options.dry_run:
        dry_run(options, config)
    else:
        options.function(options, config)


def _refuse_stray(options: argparse.Namespace) -> None:
    """Refuse options that nothing would read. Raises ConfigError."""
    found = {name: value for name, value in vars(options).items() if value not in (None, False, "")}
    for names, other, needed in (
        (("shuffle", "sample"), "compare_judges", "--compare-judges A B"),
        (("form", "row_numbers"), "examples", "--examples FILE"),
    ):
        for name in names:
            if name in found and other not in found:
                raise ConfigError(f"--{name.replace('_', '-')} goes with {needed}")
    if options.verb == "train" and "fork" in found:
        for name, stray in (
            ("--plan", options.plan),
            ("--engine verl", options.engine == "verl"),
            ("tiny-agent", options.learner == "tiny-agent"),
        ):
            if stray:
                raise ConfigError(f"--fork: {name} reuses nothing of a run; leave --fork out")
