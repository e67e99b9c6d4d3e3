"""The most memory that this process has held."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
FORGET_PEAK = "5"
"""Of proc(5): what, written to clear_refs, resets the peak of the resident set."""


def forget_peak(device: torch.device) -> None:
    """Start anew: an earlier run of this process does not count. Where that cannot be, it does. A run on a
    CPU leaves a GPU alone: touching it takes memory there, or fails where one process alone may have it."""
    with contextlib.suppress(OSError):
        (PROCESS / "clear_refs").write_text(FORGET_PEAK)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """On a GPU what PyTorch's allocator held, on a CPU the whole resident set (VmHWM); None where the system
    does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None
