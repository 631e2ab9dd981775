"""Write the two pages of docs/ that are made from the code: `python tools/reference.py`.

docs/config.md lists every setting and docs/cli.md every verb. With `--check` nothing is written
and the exit code says whether the pages are up to date; tests/test_docs.py does the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from agentic_r.cli.parser import build_parser
from agentic_r.config import config_fields

DOCS = Path(__file__).parents[1] / "docs"

CONFIG_HEAD = """# Settings

Made from the code by `python tools/reference.py`; do not edit by hand.

One TOML file holds the settings of a run, and its tables are the folders of the package. Every
setting has a default, so a config names only what it changes. On the command line a setting is
given by its dotted name: `--retriever.train.epochs 1`. `agentic-r loop CONFIG --dry-run` prints
all settings as they will be used. An unknown name is an error that names the nearest one.
"""

CLI_HEAD = """# The command line

Made from the code by `python tools/reference.py`; do not edit by hand.

    agentic-r VERB CONFIG [--dotted.setting VALUE ...]

`CONFIG` is the TOML file with the settings; `--dry-run` prints settings and stages, and stops.
Any [setting](config.md) can be given by its dotted name, as `--seed 7`. Exit codes: 0 done, 1 an
error in one line, 2 a usage or config error, 130 stopped by Ctrl-C, 143 by SIGTERM. Stopped, killed
or failed: the same command goes on from where it was. Other settings on an existing run are refused
with both values; `agentic-r loop CONFIG --fork NAME` starts a new run that reuses what is
unaffected.
"""

ABOUT_TABLES = {
    "": "The run",
    "data": "`[data]`: passages and questions",
    "given": "`[given]`: what was made elsewhere, in place of the first iteration's steps",
    "world": '`[world]`: size of the generated world (`data.source = "world"`)',
    "retriever": "`[retriever]`: the retriever",
    "retriever.encoder": "`[retriever.encoder]`: how the base encoder is read",
    "retriever.index": "`[retriever.index]`: how passages are encoded and searched",
    "retriever.rerank": "`[retriever.rerank]`: a re-ranker, its use and its training",
    "retriever.remote": "`[retriever.remote]`: a retriever behind a URL",
    "retriever.store": "`[retriever.store]`: a vector engine that an index is published in",
    "retriever.train": "`[retriever.train]`: how it is trained",
    "agent": "`[agent]`: the search agent",
    "agent.train": "`[agent.train]`: how the agent is trained",
    "agent.train.rl": "`[agent.train.rl]`: its reinforcement learning",
    "agent.train.rl.reward": "`[agent.train.rl.reward]`: what a trajectory earns",
    "agent.train.rl.guard": "`[agent.train.rl.guard]`: when training has collapsed",
    "utility": "`[utility]`: how passages are judged and examples selected",
    "loop": "`[loop]`: the iteration",
    "evaluation": "`[evaluation]`: what the table compares",
}


def config_page() -> str:
    """Return docs/config.md."""
    lines = [CONFIG_HEAD]
    table = None
    for field in config_fields():
        head, _, name = field.key.rpartition(".")
        if head != table:
            table = head
            lines += ["", f"## {ABOUT_TABLES.get(head, head)}", ""]
            lines += ["| setting | default | values | what it is |", "|---|---|---|---|"]
        values = _cell(field.type)
        lines.append(f"| `{name}` | `{_shown(field.default)}` | {values} | {_cell(field.doc)} |")
    return _tidy(lines)


def cli_page() -> str:
    """Return docs/cli.md."""
    lines = [CLI_HEAD]
    for name, verb in _verbs().items():
        named = [action for action in verb._actions if not isinstance(action, argparse._HelpAction)]
        usage = " ".join(_written(action) for action in named)
        lines += [f"\n## agentic-r {name}", "", verb.description or "", ""]
        lines += [f"    agentic-r {name} {usage}", ""]
        own = [action for action in named if action.dest not in ("config", "dry_run")]
        lines += [f"- `{_written(action)}`: {_about(action)}" for action in own]
    return _tidy(lines)


def _tidy(lines: list[str]) -> str:
    """Join lines with single blank ones between them and one newline at the end."""
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def pages() -> dict[Path, str]:
    """Return the pages by path."""
    return {DOCS / "config.md": config_page(), DOCS / "cli.md": cli_page()}


def _verbs() -> dict[str, argparse.ArgumentParser]:
    """Return every verb; one with words of its own, as convert, once for each of them."""
    verbs = {}
    for name, verb in _choices(build_parser()).items():
        below = _choices(verb)
        verbs |= {f"{name} {word}": found for word, found in below.items()} or {name: verb}
    return verbs


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(next((action.choices for action in found), {}))


def _written(action: argparse.Action) -> str:
    if not action.option_strings:
        return _values(action, action.dest)
    option = action.option_strings[-1]
    if action.nargs == 0:
        return f"[{option}]"
    values = _values(action, "VALUE")
    return f"{option} {values}" if action.required else f"[{option} {values}]"


def _values(action: argparse.Action, name: str) -> str:
    """Return what is written for the values of an argument; `name` is for one without a metavar.

    A tuple of metavars names each value, as argparse has it.
    """
    if isinstance(action.metavar, tuple):
        first, *others = action.metavar
    else:
        first, others = action.metavar or name, []
        if action.choices:
            first = "|".join(map(str, action.choices))
    if isinstance(action.nargs, int):
        return " ".join([first, *others] if others else [first] * action.nargs)
    rest = f"[{others[0] if others else first} ...]"
    if action.nargs == "+":
        return f"{first} {rest}"
    return first


def _about(action: argparse.Action) -> str:
    about = action.help or "-"
    if action.default in (None, "", False) or not action.option_strings:
        return about
    return f"{about}; default {action.default}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else f"{value}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the pages, or check them."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, encoding="utf-8")
    verb = "out of date, run: python tools/reference.py" if check else "written"
    sys.stdout.write("".join(f"{name}: {verb}\n" for name in stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
