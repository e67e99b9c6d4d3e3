"""Whether a run is compiled, and what that takes where it runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from harness.errors import WrongInput
from harness.training.settings import Compile, HardwareConfig

OLDEST = (7, 0)
"""The compute capability of the oldest cards that Inductor compiles for (its GPUTooOldForTriton)."""


def is_compiled(hardware: HardwareConfig, device: torch.device, begun: bool | None = None) -> bool:
    """Whether a run is compiled; `begun` says whether one that goes on was. Raises WrongInput where what
    `always`, or a run that began compiled, needs is missing."""
    if begun is None:
        return wants_compile(hardware.compile, device)
    if begun and (missing := missing_compiler(device)):
        raise WrongInput(f"this run began compiled, and goes on where there is {missing}")
    return begun  # compiled code rounds differently


def wants_compile(choice: Compile, device: torch.device) -> bool:
    """`auto` compiles where Inductor finds what it needs; WrongInput for `always` where it does not."""
    missing = missing_compiler(device)
    if choice is Compile.always and missing:
        raise WrongInput(f"hardware.compile=always needs {missing}; or use auto")
    return choice is not Compile.never and not missing


def missing_compiler(device: torch.device) -> str:
    """What Inductor lacks on a device, in words; empty where it has everything. On a CPU it compiles C++, on
    a GPU Triton, which compiles a little C; both include Python.h."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if device.type != "cuda":
        found = shutil.which(os.environ.get("CXX", "g++")) is not None and header.exists()
        return "" if found else "g++ (or CXX) and Python's headers"
    if importlib.util.find_spec("triton") is None:
        return "triton"
    if not header.exists() or not any(map(shutil.which, [os.environ.get("CC", "gcc"), "clang"])):
        return "gcc (or CC) and Python's headers"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < OLDEST:
        return f"a GPU of compute capability {OLDEST[0]}.{OLDEST[1]} or later"
    return ""
