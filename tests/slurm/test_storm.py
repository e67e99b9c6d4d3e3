"""Everything that happens to jobs, at random and over and over. Longer ones on demand:

STORM_CELLS=40 STORM_SEEDS=1,2,3 STORM_SECONDS=90 pytest -n 0 tests/slurm/test_storm.py
"""

import os
import random
import time

import pytest

from tests.slurm.conftest import NODES, Cluster, Sweep, is_idle, wait_for

CELLS = int(os.environ.get("STORM_CELLS", "8"))
SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "0").split(",")]
SECONDS = float(os.environ.get("STORM_SECONDS", "25"))


class Storm:
    def __init__(self, cluster: Cluster, sweep: Sweep, rng: random.Random) -> None:
        self.cluster, self.sweep, self.rng = cluster, sweep, rng
        self.events: list[str] = []

    def strike(self) -> None:
        event = self.rng.choice(
            [self.preempt, self.requeue, self.cancel, self.crash, self.cut, self.mend, self.restart]
        )
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


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_every_cell_is_done_once(cluster, sweep, seed):
    mine = sweep(CELLS, cells_per_task=2)
    mine.behave(steps=100)
    storm = Storm(cluster, mine, random.Random(seed))
    mine.launch()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(storm.rng.uniform(1, 4))
        storm.strike()
        mine.launch()
    storm.mend()

    def over() -> bool:
        storm.mend()
        mine.launch()
        return mine.counts() == {"done": CELLS}

    wait_for("the calm", over, 600)
    mine.finish()
    stops = [state.interruptions for state in mine.states().values()]
    assert sum(stops) > 0
    print(f"seed {seed}: {len(storm.events)} events, {sum(stops)} stops, at most {max(stops)} a cell")
