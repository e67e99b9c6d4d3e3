"""Whole files, written so that a reader sees the old one or the new one, also after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import WrongInput

CONFIG, PROVENANCE, METRICS = "config.json", "provenance.json", "metrics.jsonl"
ATTEMPT, FAILURE, RECORD = "attempt.json", "failure.json", "record.json"
KILLED = "killed.json"
PLAN = "plan.jsonl"
TRUNKS, TRUNK_STATES = ".trunks", f"step-{'[0-9]' * 9}.pt"


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", durable=durable)


def random_name() -> str:
    """128 random bits."""
    return os.urandom(16).hex()


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write beside, flush to disk, rename. A full disk leaves the old file as it was.

    What is not `durable` is not flushed, which takes tens of milliseconds: other processes see it at once,
    but a machine that loses its power may come back with the old file or an empty one.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{random_name()[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise WrongInput(
            f"cannot write {path}: {error.strerror}; free some space or check permissions"
        ) from error


def sync_folder(folder: Path) -> None:
    """Put a rename on the disk too, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: Path) -> Any:
    """The file's value. Raises WrongInput naming the file when it is missing or damaged."""
    value = read_json_if_any(path)
    if value is None:
        raise WrongInput(f"{path} does not exist")
    return value


def read_json_if_any(path: Path) -> Any | None:
    """The file's value; None when there is no file, or null in it. Raises WrongInput when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WrongInput(f"{path} is damaged: {error}") from error


def content_hash(value: Any) -> str:
    """SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock `name` of a folder for a moment. Where the file system has no locks this is no lock:
    what needs certainty carries a token as well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("w")
    except OSError as error:
        raise WrongInput(f"cannot write in {folder}: {error.strerror}") from error
    with lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
