"""Daemons that this cluster starts, known by their pid and when that started, and what runs under them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def steps(folder: Path, node: str | None = None) -> list[int]:
    """Pids of this cluster's tasks and of the slurmstepds above them, first those above: known by the
    SLURM_CONF in their environment, and a task also by its node."""
    tasks, above = [], []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if f"SLURM_CONF={folder}/slurm.conf".encode() not in environment:
            continue
        if b"slurmstepd" in command.split(b"\0")[0]:
            above += [int(entry.name)] if node is None else []
        elif on_node(environment, node):
            tasks.append(int(entry.name))
            above += [parent] if is_stepd(parent) else []
    return [*dict.fromkeys(above), *tasks]


def on_node(environment: list[bytes], node: str | None) -> bool:
    if node is None:
        return any(word.startswith(b"SLURMD_NODENAME=") for word in environment)
    return f"SLURMD_NODENAME={node}".encode() in environment


def is_stepd(pid: int) -> bool:
    try:
        return b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def launch(folder: Path, name: str, command: list[str], changed: Mapping[str, str] | None = None) -> None:
    """Start a daemon unless it lives, and note its pid and start."""
    if alive(folder, name):
        return
    with (folder / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment(folder), **(changed or {})},
            start_new_session=True,
        )
    (folder / "pids" / name).write_text(f"{process.pid} {started(process.pid)}")


def end(folder: Path, name: str, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask a daemon of ours to end, insist after a minute: one that is killed has not saved its state."""
    pid = alive(folder, name)
    if pid is not None:
        os.kill(pid, number)
        if not wait_for(60, lambda: alive(folder, name) is None):
            kill(pid)
    (folder / "pids" / name).unlink(missing_ok=True)


def alive(folder: Path, name: str) -> int | None:
    """The pid of a daemon that we started and that still runs."""
    try:
        pid, start_time = (folder / "pids" / name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if started(int(pid)) == start_time else None


def started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def environment(folder: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    return {
        **inherited,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{PATH}:{os.environ.get('PATH', '')}",
    }


def run(folder: Path, *command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment(folder)
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "timed out")


def wait_for(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def wait_until(seconds: float, what: str, true: Callable[[], bool]) -> None:
    if not wait_for(seconds, true):
        sys.exit(f"waited {seconds:.0f} s in vain for {what}")
