from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.config import load_config
from agentic_r.errors import ConfigError, OutageError
from agentic_r.publishing import published, rolled_back


def test_a_store_that_is_away_is_told_before_anything_is_built(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'name = "run"\nruns = "{tmp_path}/runs"\n')
    away = [("retriever.store.url", "http://127.0.0.1:9"), ("retriever.store.timeout", "1")]
    for act in (published, rolled_back):
        with pytest.raises(OutageError, match=r"Qdrant at http://127.0.0.1:9"):
            act(load_config(path, away))
        with pytest.raises(ConfigError, match=r"retriever.store.url: got none"):
            act(load_config(path))
    keyed = [*away, ("retriever.store.api_key_env", "NO_SUCH_VARIABLE")]
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE is empty"):
        published(load_config(path, keyed))
    assert not (tmp_path / "runs").exists()
