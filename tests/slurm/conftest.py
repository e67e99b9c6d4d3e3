"""A real Slurm on this machine. Where it is not installed these tests are skipped, in CI they fail."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.runs import RunDirectory, content_hash, read_owner, write_json
from harness.sweep.ledger import CellState, counts, survey
from harness.sweep.plan import PlannedCell, plan_line, read_plan, write_plan
from harness.sweep.slurm.jobs import jobs_of
from harness.sweep.slurm.launch import Launched, Launcher
from harness.sweep.slurm.settings import SlurmConfig

SCRIPT = Path(__file__).parents[2] / "slurm" / "cluster.py"
NODES = ("n1", "n2", "n3")
TRAINER = Path(__file__).with_name("trainer.py")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTING = ("slurmdbd", "mariadbd", "sacctmgr", "sacct")
SETTINGS = (
    "--nodes=3",
    "--cpus=4",
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()


def wait_for(what: str, true: Callable[[], object], seconds: float = 600) -> None:
    """The limit only ends a hang: on a busy machine everything takes many times as long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.1)


def command_of(pid: int) -> bytes:
    """Nothing of one that has ended, also where it does so just now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_slurm()
    with started(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def require_accounting() -> None:
    require_slurm(ACCOUNTING)


def require_slurm(more: Sequence[str] = ()) -> None:
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in (*DAEMONS, *more) if shutil.which(name, path=search) is None]
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
    return emptied(shared_cluster)


def emptied(cluster: Cluster) -> Cluster:
    """The cluster with no jobs and all its nodes."""
    cluster.ask("scancel", "--user=root")
    for node in NODES:
        cluster.control("up", node)
    wait_for("the jobs to end", lambda: not cluster.ask("squeue", "-h"))
    wait_for("the nodes", lambda: all(is_idle(cluster, node) for node in NODES))
    return cluster


def is_idle(cluster: Cluster, node: str) -> bool:
    state = re.findall(r" State=(\S+)", cluster.ask("scontrol", "-o", "show", "node", node))[0]
    if state.startswith("DOWN"):  # refused where it has come back by itself since we looked
        cluster.ask("sh", "-c", f"scontrol update nodename={node} state=resume || true")
    return state == "IDLE"


@dataclass(frozen=True)
class Sweep:
    """A sweep whose cells only the stand-in can train."""

    root: Path
    launcher: Launcher

    @property
    def cells(self) -> list[PlannedCell]:
        return read_plan(self.root)

    def launch(self, retry_failed: bool = False) -> Launched:
        return self.launcher.launch(self.cells, retry_failed)

    def states(self) -> dict[str, CellState]:
        return {state.cell.run_id: state for state in survey(self.root, self.cells, jobs_of(self.root))}

    def counts(self) -> dict[str, int]:
        return counts(list(self.states().values()))

    def started(self, run_id: str, attempts: int = 1) -> bool:
        """Whether that attempt at the run has taken its first steps."""
        owner = read_owner(self.root / run_id)
        return owner is not None and owner.number >= attempts and not owner.ended and self.steps(run_id) > 1

    def steps(self, run_id: str) -> int:
        rows = RunDirectory(self.root / run_id).metrics()
        return rows[-1]["step"] if rows else 0

    def behave(self, **told: object) -> None:
        write_json(self.root / "standin.json", {"steps": 30, "seconds": 0.1, **told})

    def hold(self, step: int, *run_ids: str, **told: object) -> None:
        """Let these cells, or all, take so many steps and then wait for `behave`; with 0 none begins."""
        names = run_ids or [cell.run_id for cell in self.cells]
        self.behave(hold=dict.fromkeys(names, step), **told)

    def finish(self) -> None:
        """Wait until every cell is done, and check that each has the result of an undisturbed run."""
        wait_for("the sweep", lambda: self.counts() == {"done": len(self.cells)})
        steps = json.loads((self.root / "standin.json").read_text())["steps"]
        for cell in self.cells:
            run = RunDirectory(self.root / cell.run_id)
            assert run.record().loss == expected_loss(cell.run_id, steps), cell.run_id
            assert [row["step"] for row in run.metrics()] == list(range(1, steps + 1)), cell.run_id

    def output(self) -> str:
        return "".join(path.read_text() for path in sorted((self.root / ".slurm").glob("*.txt")))


def expected_loss(run_id: str, steps: int) -> float:
    value = run_id
    for step in range(1, steps + 1):
        value = hashlib.sha256(f"{value} {step}".encode()).hexdigest()
    return int(value[:8], 16) / 2**32


def planned_sweep(root: Path, number: int, **settings: object) -> Sweep:
    names = [f"c{i:03d}" for i in range(number)]
    cells = [PlannedCell(name, "27k", 1, 2, 30, 30, 5.0, 0.1, 0, content_hash(name)) for name in names]
    write_plan(
        root, [plan_line(cell, {"config": {}, "tokens_path": ""}) for cell in cells], set, extend=False
    )
    command = (sys.executable, str(TRAINER))
    config = SlurmConfig(**{"time": "10", "warning_seconds": 60, **settings})
    sweep = Sweep(root, Launcher(root, config, command=command))
    sweep.behave()
    return sweep


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Callable[..., Sweep]:
    return lambda number, **settings: planned_sweep(tmp_path / "mine", number, **settings)
