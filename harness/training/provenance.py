"""Where a run came from: code, versions, hardware."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
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


PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "datasets", "triton", "hydra-core", "scipy")


def code_version() -> str:
    """The commit, with a hash of uncommitted edits when there are any; the release outside a checkout."""
    root = Path(harness.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return harness.__version__
    commit = git(root, "rev-parse", "HEAD")
    folders = ("harness", "kernels", "configs")
    edits = git(root, "diff", "HEAD", "--", *folders) + git(root, "status", "--porcelain", "--", *folders)
    dirty = f"+dirty.{hashlib.sha256(edits.encode()).hexdigest()[:8]}" if edits else ""
    return (commit or harness.__version__) + dirty


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def provenance(cell: Cell, origin: Origin, device: torch.device) -> dict[str, Any]:
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
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


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
