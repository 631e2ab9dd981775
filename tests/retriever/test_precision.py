"""Which number format is taken, by what the processor is faster in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agentic_r.retriever import precision
from agentic_r.retriever.precision import resolve

CPU = torch.device("cpu")
PROCESSORS = {
    "vendor_id : GenuineIntel\nflags : avx2": (False, "fp32"),
    "vendor_id : GenuineIntel\nflags : avx512f avx512_bf16": (False, "fp32"),
    "vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16": (True, "bf16 (amx_bf16)"),
    "vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16": (True, "bf16 (avx512_bf16)"),
}


@pytest.mark.parametrize("cpuinfo", PROCESSORS, ids=range(len(PROCESSORS)))
def test_auto_takes_what_is_faster_and_a_choice_is_kept(
    cpuinfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(precision, "Path", lambda _: file)
    assert resolve("auto", CPU) == PROCESSORS[cpuinfo]
    assert resolve("fp32", CPU) == (False, "fp32")
    assert resolve("bf16", CPU)[0]
