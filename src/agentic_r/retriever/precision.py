"""Which number format a forward pass uses, and what in the machine makes it worth it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
"""What a config may ask for; `auto` takes bf16 where the processor is faster in it."""


def bf16_support(device: torch.device) -> str:
    """Name the hardware that multiplies in bf16 on `device`, or "" where none does."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) if torch.cuda.is_bf16_supported() else ""
    cpuinfo = Path("/proc/cpuinfo")
    if device.type != "cpu" or not cpuinfo.is_file():
        return ""
    flags = next((x for x in cpuinfo.read_text().splitlines() if x.startswith("flags")), "").split()
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), "")


def bf16_pays(device: torch.device) -> str:
    """Name the hardware that multiplies faster in bf16 than in fp32, or "" where none does.

    Intel's AVX-512 does as many products a cycle in bf16 as in fp32 (measured on Sapphire Rapids
    without AMX: 0.7 to 0.9 times the speed of fp32, in training 0.65 to 0.75); AMD's from Zen 4 on
    does twice as many.
    """
    support = bf16_support(device)
    intel = support == "avx512_bf16" and "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    return "" if intel else support


def resolve(precision: Precision, device: torch.device) -> tuple[bool, str]:
    """Decide (use bf16, what to tell the user) for `precision` on `device`."""
    if precision == "fp32" or (precision == "auto" and not bf16_pays(device)):
        return False, "fp32"
    support = bf16_support(device)
    return True, f"bf16 ({support or 'without processor support, slow'})"


def autocast(bf16: bool, device: torch.device) -> AbstractContextManager[object]:
    """Run the matrix products of a block in bf16, or leave it as it is."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
