from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.config import (
    Config,
    config_fields,
    flat,
    load_config,
    resolved,
    to_toml,
)
from agentic_r.errors import ConfigError


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch()
    return path


def test_an_empty_file_gives_the_defaults(empty: Path) -> None:
    config = load_config(empty)
    assert config == Config()
    assert (config.retriever.k, config.retriever.train.epochs) == (2, 2)
    assert config.evaluation.ks == (1, 2, 3)


def test_what_is_dumped_loads_again(empty: Path) -> None:
    config = load_config(empty, [("name", 'a "b'.replace(' "', "-")), ("evaluation.ks", "[5]")])
    empty.write_text(to_toml(config))
    assert load_config(empty) == config
    assert resolved(config)["evaluation"]["ks"] == [5]


def test_file_then_overrides(empty: Path) -> None:
    empty.write_text("seed = 3\n[retriever]\nk = 1\n[retriever.train]\nepochs = 5\n")
    config = load_config(empty, [("retriever.train.epochs", "1"), ("--retriever.max-length", "64")])
    assert (config.seed, config.retriever.k) == (3, 1)
    assert (config.retriever.train.epochs, config.retriever.max_length) == (1, 64)


def test_override_values_are_toml_or_strings(empty: Path) -> None:
    config = load_config(
        empty,
        [
            ("name", "7"),
            ("agent.model", "some/folder"),
            ("agent.name", '"quoted"'),
            ("agent.timeout", "5"),
            ("utility.exhaustive", "true"),
            ("utility.fewer_searches", "false"),
            ("evaluation.ks", "[2, 4]"),
        ],
    )
    assert config.name == "7"
    assert config.agent.model == "some/folder"
    assert config.agent.name == "quoted"
    assert config.agent.timeout == 5.0
    assert config.utility.exhaustive is True
    assert config.utility.fewer_searches is False
    assert config.evaluation.ks == (2, 4)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("retriever.kk", "retriever.k"),
        ("retriever.train.epoch", "retriever.train.epochs"),
        ("k", "retriever.k"),
        ("retreiver", "retriever"),
        ("utility.learning_rate", "retriever.train.learning_rate"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(empty: Path, key: str, nearest: str) -> None:
    message = f"there is no setting {key}; did you mean {nearest}\\?"
    with pytest.raises(ConfigError, match=message):
        load_config(empty, [(key, "1")])
    table, _, last = key.rpartition(".")
    empty.write_text((f"[{table}]\n" if table else "") + f"{last} = 1\n")
    with pytest.raises(ConfigError, match=f"config.toml: {message}"):
        load_config(empty)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("retriever.k", "0", "got 0, expected an integer of at least 1"),
        ("retriever.k", "true", "got true, expected an integer"),
        ("retriever.k", "many", 'got "many", expected an integer'),
        ("utility.exhaustive", "False", 'got "False", expected true or false'),
        ("utility.exhaustive", "", 'got "", expected true or false'),
        ("loop.iterations", "0", "expected an integer of at least 1"),
        ("utility.negatives", "0", "expected an integer of at least 1"),
        ("utility.relevance", "101", "at least 0 and at most 100"),
        ("retriever.train.warmup", "1.5", "at least 0 and at most 1"),
        ("retriever.train.learning_rate", "nan", "more than 0"),
        ("retriever.train.learning_rate", "inf", "more than 0"),
        ("retriever.input", "question", 'expected one of "question\\+query", "query"'),
        ("utility.judge", "ftp://x", '"offline" or http'),
        ("evaluation.ks", "[]", "integers of at least 1, not empty"),
        ("evaluation.ks", "[1, 0]", "integers of at least 1, not empty"),
        ("evaluation.ks", "[1, 1]", "each k once"),
        ("name", "../up", "letters, digits"),
        ("seed", "-1", "at least 0"),
        ("retriever", "3", "retriever is a table"),
        ("data.source", "files", "data.corpus: got nothing, expected a file"),
        ("data.sub_answers", "judge", "offline judge"),
        ("utility.candidates", "15", "expected more than utility.negatives"),
    ],
)
def test_a_bad_value_names_key_got_and_expected(
    empty: Path, key: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(empty, [(key, value)])
    assert key in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_bad_value_in_the_file_names_the_file(empty: Path) -> None:
    empty.write_text('[agent]\nturns = "six"\n')
    with pytest.raises(ConfigError, match=r'config\.toml: agent\.turns: got "six", expected an'):
        load_config(empty)
    empty.write_text("agent = 3\n")
    with pytest.raises(ConfigError, match=r"config\.toml: agent is a table"):
        load_config(empty)
    empty.write_text("[seed]\nx = 3\n")
    with pytest.raises(ConfigError, match=r"config\.toml: seed: got"):
        load_config(empty)


def test_a_missing_or_malformed_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "bad.toml").write_text("seed = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml: got text that is not TOML .*line 1"):
        load_config(tmp_path / "bad.toml")


def test_every_field_is_documented_and_has_its_default() -> None:
    fields = config_fields()
    assert all(field.doc.endswith(".") and field.type for field in fields)
    defaults = flat(Config())
    assert [field.key for field in fields] == list(defaults)
    for field in fields:
        value = defaults[field.key]
        assert (tuple(value) if isinstance(value, list) else value) == field.default


def test_a_list_of_files_may_be_one(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[given]\ntrajectories = "a.json"\n')
    assert load_config(path).given.trajectories == ("a.json",)
    found = load_config(path, [("given.trajectories", '["b.json", "c.json"]')])
    assert found.given.trajectories == ("b.json", "c.json")
    assert load_config(path, [("given.trajectories", '""')]).given.trajectories == ()
    with pytest.raises(ConfigError, match=r"got \[7\], expected a list of strings, or one"):
        load_config(path, [("given.trajectories", "[7]")])
