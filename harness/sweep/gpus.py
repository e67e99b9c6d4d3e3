"""The GPUs of this machine, counted before cells are started on them. No torch: another process asks it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from harness.errors import WrongInput
from harness.sweep.slots import only

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Of NVIDIA, of AMD, and of either below Windows' Linux: without one of them nobody needs to be asked."""
COUNT = "import torch; print(torch.cuda.device_count())"
USE = "import torch; torch.zeros(1, device='cuda').item()"
ERROR = re.compile(r"[\w.]*Error: ")
SECONDS = 120.0


@cache
def gpus_here() -> int:
    """How many GPUs a process started now would see."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return 0
    try:
        asked = subprocess.run(
            [sys.executable, "-c", COUNT], capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return int(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def refuse_missing_gpus(names: Sequence[str]) -> None:
    """Raises WrongInput where a slot would have no GPU: its cells would fail one after another, within
    seconds each, and so might the whole sweep. CUDA shows a process one MIG slice, however many it is given,
    so those are taken on trust."""
    found = gpus_here()
    if found < (1 if any(name.startswith("MIG-") for name in names) else len(names)):
        raise WrongInput(
            f"launcher.gpus={len(names)} but PyTorch sees {found} here; say launcher.gpus={max(found, 1)}"
            if found
            else f"launcher.gpus={len(names)} but PyTorch sees no GPU here; see what "
            "`python -c 'import torch; torch.zeros(1).cuda()'` says"
        )


def trouble_with(gpu: str) -> str:
    """Why a new process cannot use this GPU; empty where it can."""
    environment = {**os.environ, **only(gpu, os.environ)}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", USE], capture_output=True, text=True, timeout=SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS:.0f} s"
    said = [line for line in tried.stderr.splitlines() if ERROR.match(line)]
    return (said or [f"exit code {tried.returncode}"])[-1] if tried.returncode else ""
