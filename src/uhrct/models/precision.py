"""The type of numbers in which the networks are fastest on a device."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch


def inference_dtype(device: torch.device) -> torch.dtype:
    """The type in which the networks are fastest, bfloat16 or float32. The results agree to 0.01 dB.

    It depends on the kind of processor alone and is not timed: equal machines must give equal voxels.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _fast_on_cpu() else torch.float32


@cache
def _fast_on_cpu() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32: with AMX, or with AVX512-BF16 of AMD.

    AVX512-BF16 of an Intel server without AMX had half the speed of float32; without either, bfloat16 is emulated.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in _processor()


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return ""
