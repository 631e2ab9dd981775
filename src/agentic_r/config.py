"""Read the one TOML file: settings with overrides, checked, each error in one clear line."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from agentic_r.errors import ConfigError
from agentic_r.settings import (
    JUDGE,
    AgentConfig,
    AgentTrainConfig,
    Config,
    DataConfig,
    EncoderConfig,
    Entries,
    EvaluationConfig,
    IndexConfig,
    LoopConfig,
    RerankConfig,
    RetrieverConfig,
    RetrieverTrainConfig,
    ServeConfig,
    UtilityConfig,
    WorldConfig,
)
from agentic_r.settings.rl import ADDRESS

__all__ = [
    "AgentConfig",
    "AgentTrainConfig",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "Field",
    "IndexConfig",
    "LoopConfig",
    "RerankConfig",
    "RetrieverConfig",
    "RetrieverTrainConfig",
    "ServeConfig",
    "UtilityConfig",
    "WorldConfig",
    "checked",
    "config_fields",
    "flat",
    "load_config",
    "resolved",
    "to_toml",
]


class Field(NamedTuple):
    """One setting: its dotted key, its type in words, its default, its line of documentation."""

    key: str
    type: str
    default: Any
    doc: str


TEXTS = tuple[str, ...]
"""The type of a list of files or addresses; one alone may be given as it is."""

SEVERAL = ("agent.model", "utility.judge")
"""Settings that may be a list of addresses; it is kept as one text with commas."""


def load_config(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Read a TOML file, put (dotted key, value) overrides over it and check everything.

    An override's value is read as TOML where it can be, else as a string. Raises ConfigError
    naming the file or override, the key, what was got and what was expected; an unknown key is
    answered with the nearest name.
    """
    values = _flatten(_read_toml(Path(path)), str(path))
    sources = dict.fromkeys(values, str(path))
    for name, text in overrides:
        key = name.removeprefix("--").replace("-", "_")
        sources[key] = f"override --{key}"
        _check_key(key, sources[key])
        values[key] = _parse(key, text)
    converted = {key: _convert(key, value, sources[key]) for key, value in values.items()}
    config = msgspec.convert(_nest(converted), Config)
    _check_together(config, str(path))
    return config


def checked(key: str, value: Any, source: str) -> Any:
    """Check one setting and return it in its type. Raises ConfigError as `load_config` does."""
    _check_key(key, source)
    return _convert(key, value, source)


def resolved(config: Config) -> dict[str, Any]:
    """Return every setting as plain nested dicts, ready for JSON."""
    plain: dict[str, Any] = json.loads(msgspec.json.encode(config))
    return plain


def flat(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """Return {dotted key: value} of a config or of its resolved dict."""
    nested = resolved(config) if isinstance(config, Config) else config
    return dict(_leaves(nested))


def to_toml(config: Config) -> str:
    """Write every setting as TOML that `load_config` reads back."""
    lines: list[str] = []
    table = ""
    for key, value in flat(config).items():
        head, _, last = key.rpartition(".")
        if head != table:
            table = head
            lines += ["", f"[{head}]"]
        lines.append(f"{last} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def config_fields() -> list[Field]:
    """Return every setting in the order of the file, for `--help` and docs/config.md."""
    return [
        Field(key, _expected(type, meta), default, meta.description or "")
        for key, (type, meta, default) in _FIELDS.items()
    ]


def _walk(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any, Meta, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _walk(hint, f"{prefix}{field.name}.")
        else:
            type_, meta = get_args(hint)
            yield f"{prefix}{field.name}", type_, meta, field.default


_FIELDS: dict[str, tuple[Any, Meta, Any]] = {
    key: (type_, meta, default) for key, type_, meta, default in _walk(Config)
}
_TABLES = tuple(dict.fromkeys(k.rpartition(".")[0] for k in _FIELDS if "." in k))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: got text that is not TOML ({error}), expected TOML") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _flatten(table: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if key in _TABLES and isinstance(value, dict):
            values |= _flatten(value, source, f"{key}.")
        else:
            _check_key(key, source)
            values[key] = value
    return values


def _check_key(key: str, source: str) -> None:
    if key in _FIELDS:
        return
    if key in _TABLES:
        inside = next(name for name in _FIELDS if name.startswith(f"{key}."))
        raise ConfigError(f"{source}: {key} is a table; set one of its keys, such as {inside}")
    nearest = _nearest(key)
    hint = f"; did you mean {nearest}?" if nearest else "; docs/config.md lists all settings"
    raise ConfigError(f"{source}: there is no setting {key}{hint}")


def _nearest(key: str) -> str:
    """Find the name that was meant: a slip in the same table, the right name in another, any."""
    table, _, last = key.rpartition(".")
    names = [*_FIELDS, *_TABLES]
    beside = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == table}
    elsewhere = [name for name in _FIELDS if name.rpartition(".")[2] == last]
    found = [beside[name] for name in get_close_matches(last, list(beside), 1, 0.6)]
    found = found or elsewhere or get_close_matches(key, names, 1, 0.6)
    return found[0] if found else ""


def _parse(key: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    if set(parsed) != {"value"}:
        return text
    value = parsed["value"]
    # A name such as 7 or 2024-01-01 is meant as it stands.
    return text if _FIELDS[key][0] is str and not isinstance(value, str) else value


def _convert(key: str, value: Any, source: str) -> Any:
    type_, meta, _ = _FIELDS[key]
    if key in SEVERAL and isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    if type_ == TEXTS and isinstance(value, str):
        value = [value] if value else []
    try:
        converted = msgspec.convert(value, Annotated[type_, meta])
        if isinstance(converted, float) and not math.isfinite(converted):
            raise msgspec.ValidationError("not finite")
        return converted
    except msgspec.ValidationError:
        shown = json.dumps(value, default=str, ensure_ascii=False)
        raise ConfigError(
            f"{source}: {key}: got {shown}, expected {_expected(type_, meta)}"
        ) from None


def _check_together(config: Config, source: str) -> None:
    """Check what no single setting can know."""
    data, utility = config.data, config.utility
    if data.source == "files" and not data.corpus:
        raise ConfigError(
            f"{source}: data.corpus: got nothing, expected a file because data.source is "
            '"files"; give --data.corpus FILE'
        )
    if data.sub_answers == "judge" and not utility.judge.startswith("http"):
        raise ConfigError(
            f'{source}: data.sub_answers: got "judge" with the {utility.judge} judge, which cannot '
            'infer them; set utility.judge to http://... or data.sub_answers to "hops"'
        )
    if utility.judge in ("cross-encoder", "likelihood") and not utility.judge_name:
        raise ConfigError(
            f"{source}: utility.judge_name: got nothing, expected the folder or hub name of the "
            f"model for utility.judge {utility.judge}"
        )
    if utility.judge_prompt_file and not utility.judge.startswith("http"):
        raise ConfigError(
            f"{source}: utility.judge_prompt_file: got a file with the {utility.judge} judge, "
            "which reads no prompt; set utility.judge to http://... or leave the file out"
        )
    if utility.subanswer_prompt_file and data.sub_answers != "judge":
        raise ConfigError(
            f"{source}: utility.subanswer_prompt_file: got a file with data.sub_answers "
            f'"{data.sub_answers}", which asks no model; set data.sub_answers to "judge" or leave '
            "the file out"
        )
    if utility.signals != "both" and utility.rule != "upstream":
        raise ConfigError(
            f"{source}: utility.signals: got {utility.signals!r} with the rule {utility.rule}, "
            'which needs both; set utility.rule to "upstream" or utility.signals to "both"'
        )
    if utility.candidates <= utility.negatives:
        raise ConfigError(
            f"{source}: utility.candidates: got {utility.candidates}, expected more than "
            f"utility.negatives ({utility.negatives}); otherwise no search could be kept"
        )
    ks = config.evaluation.ks
    if len(set(ks)) < len(ks):
        raise ConfigError(f"{source}: evaluation.ks: got {list(ks)}, expected each k once")


def _expected(type_: Any, meta: Meta) -> str:
    """Say in words what a setting takes."""
    if get_origin(type_) is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(type_))
    if type_ is Entries:
        return "a list of tables"
    if type_ == TEXTS:
        return "a list of strings, or one"
    if get_origin(type_) is tuple:
        if get_args(type_) == (float, float):
            return "a list of two numbers"
        return "a list of integers of at least 1" + (", not empty" if meta.min_length else "")
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}[type_]
    if meta.pattern == JUDGE:
        rules = '"containment", "gold", "cross-encoder", "likelihood", "offline"'
        return f"one of {rules} or http://..."
    if meta.pattern == ADDRESS:
        return "http://HOST:PORT, several with commas, or nothing"
    if meta.pattern is not None:
        return "a string of letters, digits, dots, dashes and underscores"
    if meta.min_length is not None:
        return f"{words}, not empty"
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", meta.ge), ("more than", meta.gt), ("at most", meta.le))
        if bound is not None
    ]
    return f"{words} of {' and '.join(bounds)}" if bounds else words


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *tables, last = key.split(".")
        at = nested
        for table in tables:
            at = at.setdefault(table, {})
        at[last] = value
    return nested


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
