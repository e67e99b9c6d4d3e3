"""Where a run came from: code, versions, hardware."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.training.cell import Cell

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Origin:
    """What a run must know of itself before it starts: its code, and when its first attempt began."""

    code: str
    started_at: str


TOLD = re.compile(
    r"(OMP|MKL|KMP|GOMP|OPENBLAS)_(NUM_THREADS|DYNAMIC|AFFINITY|BLOCKTIME|PROC_BIND|PLACES|CBWR)"
    r"|MALLOC_(ARENA_MAX|MMAP_THRESHOLD_|TRIM_THRESHOLD_|CONF)|LD_PRELOAD|CXX"
    r"|(CUDA|HIP|ROCR)_VISIBLE_DEVICES|CUDA_(LAUNCH_BLOCKING|DEVICE_MAX_CONNECTIONS|MPS_ACTIVE_THREAD_PERCENTAGE)"
    r"|CUBLAS_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE|PYTORCH_(CUDA_)?ALLOC_CONF|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
    r"|TORCHINDUCTOR_(MAX_AUTOTUNE|FREEZING|CPP_WRAPPER)|TRITON_INTERPRET"
    r"|NCCL_(ALGO|PROTO|IB_DISABLE|P2P_DISABLE|SOCKET_IFNAME|NVLS_ENABLE)|GLOO_SOCKET_IFNAME"
    r"|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT|TORCHELASTIC_RESTART_COUNT"
    r"|SLURM_(CLUSTER_NAME|JOB_ID|JOB_PARTITION|JOB_NODELIST|ARRAY_JOB_ID|ARRAY_TASK_ID|RESTART_COUNT|PROCID"
    r"|STEP_ID|STEP_NUM_TASKS|NTASKS|NNODES|CPUS_PER_TASK|GPUS_ON_NODE|MEM_PER_NODE|MEM_PER_CPU)"
)
DRIVERS = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version")
PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "datasets", "triton", "hydra-core", "scipy")


def code_version() -> str:
    """The commit, with a hash of uncommitted edits when there are any; the release outside a checkout."""
    return version_of(Path(harness.__file__).resolve().parent.parent)


def version_of(root: Path) -> str:
    if not (root / ".git").exists():
        return harness.__version__
    folders = ("harness", "kernels", "configs")
    new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *folders).split(b"\0")
    edits = git(root, "diff", "--binary", "HEAD", "--", *folders)
    files = {name: root / os.fsdecode(name) for name in new if name}
    edits += b"".join(name + path.read_bytes() for name, path in files.items() if path.is_file())
    dirty = f"+dirty.{hashlib.sha256(edits).hexdigest()[:8]}" if edits else ""
    return (git(root, "rev-parse", "HEAD").decode() or harness.__version__) + dirty


def git(root: Path, *arguments: str) -> bytes:
    """What it prints; nothing where it fails."""
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return b""


def provenance(cell: Cell, origin: Origin, device: torch.device, world_size: int = 1) -> dict[str, Any]:
    """Of the latest attempt; `started_at` is the first one's."""
    import torch  # here: planning asks for the code's version alone

    return {
        "started_at": origin.started_at,
        "code_version": origin.code,
        "corpus_hash": cell.corpus_hash,
        "tokenizer_hash": cell.tokenizer_hash,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "cpus_allowed": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": memory_bytes(),
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "gpu": gpu(device) if device.type == "cuda" else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "blas": "mkl" if torch.backends.mkl.is_available() else "other",
        "compiler": compiler(),
        "environment": environment(os.environ),
    }


def gpu(device: torch.device) -> dict[str, Any]:
    """What a GPU's speed and rounding depend on."""
    import torch

    about = torch.cuda.get_device_properties(device)
    return {
        "compute_capability": f"{about.major}.{about.minor}",
        "memory_bytes": about.total_memory,
        "multiprocessors": about.multi_processor_count,
        "visible": torch.cuda.device_count(),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else None,
        "tf32": torch.backends.cuda.matmul.fp32_precision == "tf32",
    }


def driver() -> str | None:
    """Of NVIDIA's or AMD's kernel module, where one is loaded and has a version of its own."""
    for statement in DRIVERS:
        with contextlib.suppress(OSError):
            if lines := Path(statement).read_text().splitlines():
                return lines[0].removeprefix("NVRM version:").strip()
    return None


def compiler() -> str | None:
    """The first line of what `$CXX --version` says, with which Inductor compiles for a CPU."""
    try:
        command = [os.environ.get("CXX", "g++"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.partition("\n")[0] or None


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that bear on numbers, speed or where a job ran. What is not named here is left out, since
    an environment may hold keys and passwords."""
    return {name: variables[name] for name in sorted(variables) if TOLD.fullmatch(name)}


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
