"""Checkpoints that survive a crash at any instant: write beside, flush, read back, rename, pointer last.

The previous checkpoint stays until the next one has been read back; a damaged one falls back to it.
Loading never executes pickled code, and compares checksums, which torch.load does not: it takes a flipped
bit for a weight.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import WrongInput
from harness.runs import sync_folder, write_text

POINTER = "latest.json"
KEEP = 2
UNWRITABLE = (OSError, RuntimeError, zipfile.BadZipFile)
"""What a full disk raises: Python's error, that of PyTorch's own writer, or what is found on reading back."""


@dataclass(frozen=True)
class State:
    """Everything a run needs to go on as if it had never stopped. `losses` and `grad_norms`, float64 [steps],
    are kept by runs that share their trunk; `shared` says what this one took over (`branch.Shared`).
    `attention_tiles` were chosen on the card; other ones sum in another order."""

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    micro_batch: int
    threads: int
    compiled: bool
    train_seconds: float
    started_at: str
    world_size: int = 1
    earlier_sizes: str = ""
    losses: Tensor | None = None
    grad_norms: Tensor | None = None
    shared: dict[str, Any] | None = None
    attention_tiles: tuple[int, ...] | None = None


def save(folder: Path, state: State) -> Path:
    """Write a checkpoint of `state`. Raises WrongInput when the disk is full; older ones survive."""
    path = path_of(folder, state.step)
    try:
        write(path, vars(state), folder)
    except UNWRITABLE as error:
        raise WrongInput(
            f"cannot save checkpoint {path}: {getattr(error, 'strerror', None) or error}; "
            "the previous checkpoint is kept; free some space and start again"
        ) from error
    write_text(folder / POINTER, json.dumps({"file": path.name}) + "\n")
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.pt"


def write(path: Path, value: dict[str, Any], workshop: Path) -> None:
    """Write in `workshop`, on the same file system, and put it in place once it has been read back.

    Raises one of UNWRITABLE when the disk is full; what lay at `path` survives.
    """
    beside = workshop / f".{path.name}.{os.getpid()}"
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        read(beside)
        beside.replace(path)
        sync_folder(path.parent)
    except UNWRITABLE as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from error  # what the disk said; PyTorch's writer speaks of positions
        raise


def read(path: Path) -> dict[str, Any]:
    """Raises OSError when the file cannot be read, and almost anything else when it is damaged."""
    with path.open("rb") as file:
        try:
            torn = zipfile.ZipFile(file).testzip()
        except OSError as error:  # a seek to where a damaged index points
            raise zipfile.BadZipFile(str(error)) from error
        if torn:
            raise zipfile.BadZipFile(f"the checksum of {torn} is wrong")
        file.seek(0)
        value: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return value


def load_latest(folder: Path) -> State | None:
    """The newest readable checkpoint, or None. Damaged ones are named on stderr and set aside."""
    if not folder.is_dir():
        return None
    for leftover in folder.glob(".step-*"):
        leftover.unlink(missing_ok=True)
    for path in candidates(folder):
        try:
            return load_file(path)
        except (OSError, MemoryError):
            raise  # says nothing about the file
        except Exception as error:  # a torn file fails in many ways; every one means: try the older file
            first = (str(error).splitlines() or [""])[0]
            print(
                f"checkpoint {path} is damaged ({first}); kept as *.damaged, going back to the one before",
                file=sys.stderr,
            )
            path.replace(path.with_suffix(".damaged"))
    return None


def candidates(folder: Path) -> list[Path]:
    """The pointed-to checkpoint first, then the others from new to old."""
    files = sorted(folder.glob("step-*.pt"), reverse=True)
    try:
        pointed = folder / json.loads((folder / POINTER).read_text())["file"]
    except (OSError, ValueError, KeyError, TypeError):
        return files
    return sorted(files, key=lambda path: path != pointed)


def load_file(path: Path) -> State:
    return State(**read(path))
