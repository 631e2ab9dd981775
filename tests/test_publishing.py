from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.config import load_config
from agentic_r.errors import ConfigError, OutageError
from agentic_r.publishing import published, rolled_back


def test_a_store_that_is_away_is_told_before_anything_is_built(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'name = "run"\nruns = "{tmp_path}/runs"\n')
    address = [("retriever.store.url", "http://127.0.0.1:9"), ("retriever.store.timeout", "1")]
    pytest.importorskip("pymilvus")
    for kind in ("qdrant", "milvus"):
        away = [("retriever.kind", kind), *address]
        for act in (published, rolled_back):
            with pytest.raises(OutageError, match=rf"(?i){kind} at http://127.0.0.1:9"):
                act(load_config(path, away))
            with pytest.raises(ConfigError, match=rf"retriever.store.url: got none.* of {kind}"):
                act(load_config(path, away[:1]))
    with pytest.raises(ConfigError, match=r"retriever.kind: got dense, expected qdrant or milvus"):
        published(load_config(path, address))
    keyed = [*away, ("retriever.store.api_key_env", "NO_SUCH_VARIABLE")]
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE is empty"):
        published(load_config(path, keyed))
    assert not (tmp_path / "runs").exists()
