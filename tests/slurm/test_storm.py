"""Everything that happens to jobs, at random and over and over. Longer ones on demand:

STORM_CELLS=40 STORM_SEEDS=1,2,3 STORM_SECONDS=90 pytest -n 0 tests/slurm/test_storm.py

The same under a limit on the user's jobs, launched once:

STORM_CAP=5 STORM_CELLS=40 STORM_SECONDS=90 pytest -n 0 tests/slurm/test_storm.py -k limit

The same over cells that really train, planned in one folder and trained undisturbed in another:

harness plan group=storm ...; harness sweep group=storm runs_dir=calm ...     the same words
STORM_SWEEP=runs/storm STORM_CALM=calm/storm STORM_SECONDS=90 pytest -n 0 tests/slurm/test_storm.py -k real
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.runs import RunDirectory, read_owner
from harness.sweep.slurm.launch import Launcher
from harness.sweep.slurm.settings import SlurmConfig
from tests.slurm.conftest import (
    NODES,
    Cluster,
    Sweep,
    is_idle,
    planned_sweep,
    require_accounting,
    started,
    wait_for,
)

CELLS = int(os.environ.get("STORM_CELLS", "8"))
SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "0").split(",")]
SECONDS = float(os.environ.get("STORM_SECONDS", "25"))


class Storm:
    def __init__(self, cluster: Cluster, sweep: Sweep, rng: random.Random) -> None:
        self.cluster, self.sweep, self.rng = cluster, sweep, rng
        self.events: list[str] = []

    def strike(self, *, final: bool = True) -> None:
        """One of them; what is cancelled is so for good, so not unless `final`."""
        blows = [self.preempt, self.requeue, self.crash, self.cut, self.mend, self.restart]
        event = self.rng.choice([*blows, self.cancel] if final else blows)
        self.events.append(event.__name__)
        event()

    def place(self) -> str:
        """A node where it hurts."""
        busy = sorted(set(self.cluster.ask("squeue", "-h", "-t", "R", "-p", "low", "-o", "%N").split()))
        return self.rng.choice(busy or NODES)

    def preempt(self) -> None:
        node = self.place()
        words = ("--partition=high", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--time=5")
        self.cluster.ask("sbatch", *words, "--wrap=sleep 1")

    def running(self) -> list[str]:
        return self.cluster.ask("squeue", "-h", "-t", "R", "-p", "low", "-o", "%F_%K").split()

    def requeue(self) -> None:
        if tasks := self.running():
            self.refusable("scontrol", "requeue", self.rng.choice(tasks))

    def cancel(self) -> None:
        if tasks := self.running():
            self.refusable("scancel", self.rng.choice(tasks))

    def refusable(self, *command: str) -> None:
        """The task may have ended since we looked."""
        self.cluster.ask("sh", "-c", f"{' '.join(command)} 2>/dev/null || true")

    def crash(self) -> None:
        self.lose("crash")

    def cut(self) -> None:
        self.lose("cut")

    def lose(self, how: str) -> None:
        node = self.place()
        self.cluster.control(how, node)
        self.cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=storm")

    def mend(self) -> None:
        for node in NODES:
            self.cluster.control("up", node)
            is_idle(self.cluster, node)

    def restart(self) -> None:
        self.cluster.control("restart")


def ride_out(storm: Storm) -> None:
    """Launch, and again after every blow; then until all is done."""
    mine = storm.sweep
    mine.launch()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(storm.rng.uniform(1, 4))
        storm.strike()
        mine.launch()
    calm(storm, mine.launch)


def calm(storm: Storm, again: Callable[[], object]) -> None:
    """Until all is done, `again` called now and then."""

    def over() -> bool:
        storm.mend()
        again()
        return storm.sweep.counts() == {"done": len(storm.sweep.cells)}

    wait_for("the calm", over)
    stops = [state.interruptions for state in storm.sweep.states().values()]
    assert sum(stops) > 0
    print(f"{len(storm.events)} events, {sum(stops)} stops, at most {max(stops)} a cell: {storm.events}")


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_every_cell_is_done_once(cluster, sweep, seed):
    mine = sweep(CELLS, cells_per_task=2)
    mine.hold(7, steps=100)
    mine.launch()
    wait_for("the first", lambda: mine.started("c000"))
    cluster.ask("scontrol", "requeue", read_owner(mine.root / "c000").job.job)
    wait_for("its second attempt", lambda: mine.started("c000", 2))  # a slow storm may strike none that runs
    mine.behave(steps=100)
    ride_out(Storm(cluster, mine, random.Random(seed)))
    mine.finish()


@pytest.mark.skipif("STORM_CAP" not in os.environ, reason="minutes: see the top of the file")
@pytest.mark.parametrize("seed", SEEDS)
def test_under_a_limit_a_sweep_gets_through_a_storm_with_nothing_typed_again(
    tmp_path_factory, tmp_path, seed
):
    require_accounting()
    with started(tmp_path_factory.mktemp("accounting"), "--accounting") as cluster:
        cap = f"MaxSubmitJobsPerUser={os.environ['STORM_CAP']}"
        cluster.ask("sacctmgr", "--immediate", "add", "qos", "few", "set", cap)
        cluster.ask("sacctmgr", "--immediate", "modify", "user", "root", "set", "qos+=few")
        mine = planned_sweep(tmp_path / "mine", CELLS, qos="few")
        mine.behave(steps=100)
        storm = Storm(cluster, mine, random.Random(seed))
        assert mine.launch().waiting == CELLS - int(os.environ["STORM_CAP"])
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(storm.rng.uniform(1, 4))
            storm.strike(final=False)
        calm(storm, lambda: None)
        mine.finish()


@pytest.mark.skipif(
    "STORM_SWEEP" not in os.environ, reason="minutes of real training: see the top of the file"
)
def test_after_a_storm_real_cells_equal_those_of_an_undisturbed_sweep(cluster):
    root, calm = (Path(os.environ[name]).resolve() for name in ("STORM_SWEEP", "STORM_CALM"))
    config = SlurmConfig(time="30", warning_seconds=60, cells_per_task=2)
    mine = Sweep(root, Launcher(root, config))
    ride_out(Storm(cluster, mine, random.Random(SEEDS[0])))
    for cell in mine.cells:
        one, other = (RunDirectory(folder / cell.run_id) for folder in (root, calm))
        assert one.record().science() == other.record().science()
        assert [learned(row) for row in one.metrics()] == [learned(row) for row in other.metrics()]


def learned(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics without what depends on the clock."""
    return {name: row.get(name) for name in ("kind", "step", "tokens", "loss", "lr", "grad_norm")}
