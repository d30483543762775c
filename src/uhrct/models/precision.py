"""The type of numbers in which the networks are fastest on a device."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import nn


def inference_dtype(device: torch.device) -> torch.dtype:
    """The type in which the networks are fastest, bfloat16 or float32. The results agree to 0.01 dB."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return _fastest_on_cpu() if device.type == "cpu" else torch.float32


@cache
def _fastest_on_cpu() -> torch.dtype:
    """bfloat16 where the processor has instructions for it, and they are worth it."""
    if torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    if not torch.cpu._is_avx512_bf16_supported():  # such a processor emulates bfloat16
        return torch.float32
    # AVX512-BF16 is twice as fast as float32 on some processors and half as fast on others
    return torch.bfloat16 if _conv_seconds(torch.bfloat16) < 0.8 * _conv_seconds(torch.float32) else torch.float32


@torch.no_grad()
def _conv_seconds(dtype: torch.dtype) -> float:
    """The shortest time of a convolution of the size that the networks have; all of them take a few milliseconds."""
    layer = nn.Conv2d(96, 96, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.ones(1, 96, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        layer(image)
        times.append(time.perf_counter() - begin)
    return min(times)
