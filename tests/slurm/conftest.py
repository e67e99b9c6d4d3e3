"""A real Slurm on this machine. Where it is not installed these tests are skipped, in CI they fail."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "slurm" / "cluster.py"
NODES = ("n1", "n2", "n3")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
SETTINGS = (
    "--nodes=3",
    "--cpus=4",
    "--gpus=2",
    "--grace=15",
    "--user-signal",
    "--requeue-wait=5",
    "--max-array=6",
)


@dataclass(frozen=True)
class Cluster:
    folder: Path

    def control(self, verb: str, *words: str) -> None:
        command = [sys.executable, str(SCRIPT), verb, str(self.folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()


def wait_for(what: str, true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_slurm()
    with started(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def require_slurm() -> None:
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in DAEMONS if shutil.which(name, path=search) is None]
    if missing or os.geteuid() != 0:
        why = f"{', '.join(missing)} not installed" if missing else "only root may start a cluster"
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI these tests must run: {why}")
        pytest.skip(why)


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        cluster.control("start", *SETTINGS, *words)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield cluster
    finally:
        cluster.control("stop")


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The cluster with no jobs and all its nodes."""
    shared_cluster.ask("scancel", "--user=root")
    for node in NODES:
        shared_cluster.control("up", node)
    wait_for("the jobs to end", lambda: not shared_cluster.ask("squeue", "-h"))
    wait_for("the nodes", lambda: all(is_idle(shared_cluster, node) for node in NODES))
    return shared_cluster


def is_idle(cluster: Cluster, node: str) -> bool:
    state = re.findall(r" State=(\S+)", cluster.ask("scontrol", "-o", "show", "node", node))[0]
    if state.startswith("DOWN"):
        cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
    return state == "IDLE"
