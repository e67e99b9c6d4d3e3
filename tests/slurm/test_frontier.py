"""slurm/frontier.sbatch as one submits it: one run whose processes lie on two nodes."""

import os
import re
import sys
from pathlib import Path

from harness.runs import RunDirectory, run_directories
from tests.conftest import toy_overrides
from tests.slurm.conftest import Cluster, wait_for
from tests.training.launched import train_together

SCRIPT = Path(__file__).parents[2] / "slurm" / "frontier.sbatch"
STANDIN = """#!/bin/sh
echo "$SLURM_PROCID of $SLURM_NTASKS at $MASTER_ADDR:$MASTER_PORT, ${SLURM_RESTART_COUNT:-0}: $*" >> typed
case "$SLURM_PROCID $*" in 0*wrong*) exit 2 ;; *wrong* | *slow*) exec sleep 600 ;; esac
[ "$SLURM_PROCID" = 0 ] && touch "$SLURM_JOB_ID"
[ -n "$SLURM_RESTART_COUNT" ] && exit
until [ -e "$SLURM_JOB_ID" ]; do sleep 0.1; done
[ "$SLURM_PROCID" = 0 ] && exec sleep 600
kill -9 $$
"""
"""In place of `harness`: its second process dies, as of memory, once both are there, unless it has been
started again; or the first says at once what is wrong."""


PAUSED = f"""#!/bin/sh
[ -n "$SLURM_RESTART_COUNT" ] && exec {sys.executable} -m harness "$@"
exec {sys.executable} {Path(__file__).parents[1] / "training" / "paused.py"} 10 "$@"
"""
"""The real one, which stands still after some steps until the job is queued again."""


def submit(cluster: Cluster, cwd: Path, nodes: int, tasks: int, *words: str) -> str:
    """For longer than the 300 seconds ahead of whose end the script has USR1 sent."""
    shape = [f"--nodes={nodes}", f"--ntasks-per-node={tasks}", "--cpus-per-task=1", "--time=30"]
    return cluster.ask("sbatch", "--parsable", f"--chdir={cwd}", *shape, str(SCRIPT), *words)


def fate(cluster: Cluster, job: str) -> tuple[str, int]:
    """Its state and how often it has been requeued."""
    told = cluster.ask("scontrol", "--oneliner", "show", "job", job)
    state, restarts = (re.search(rf" {name}=(\w+)", told) for name in ("JobState", "Restarts"))
    assert state and restarts, told
    return state[1], int(restarts[1])


def test_what_dies_is_queued_again_and_what_is_wrong_or_cancelled_is_not(cluster, tmp_path, monkeypatch):
    (tmp_path / "harness").write_text(STANDIN)
    (tmp_path / "harness").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    words = ("model=27k", "corpus.name=$(id);'")
    job, wrong, slow = (submit(cluster, tmp_path, 2, 1, *words, more) for more in ("seed=1", "wrong", "slow"))
    typed = tmp_path / "typed"
    wait_for("the slow one", lambda: typed.exists() and "slow" in typed.read_text())
    cluster.ask("scancel", slow)
    wait_for("the end", lambda: not cluster.ask("squeue", "-h"))
    fates = [fate(cluster, one) for one in (job, wrong, slow)]
    assert fates == [("COMPLETED", 1), ("FAILED", 0), ("CANCELLED", 0)]
    port = 20_000 + int(job) % 10_000
    told = [line for line in typed.read_text().splitlines() if line.endswith("seed=1")]
    assert sorted(told) == sorted(
        f"{rank} of 2 at n1:{port}, {restart}: train {' '.join(words)} seed=1"
        for rank in (0, 1)
        for restart in (0, 1)
    )


def test_a_run_on_two_nodes_goes_on_to_the_bit(cluster, toy_root, planned_run, tmp_path, monkeypatch):
    (tmp_path / "harness").write_text(PAUSED)
    (tmp_path / "harness").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # the names of these nodes do not resolve
    words = ["horizon.tokens=60_000", "saving.log_steps=1"]
    place = f"runs_dir={tmp_path / 'frontier'}"
    job = submit(cluster, tmp_path, 2, 1, *toy_overrides(toy_root), *words, place)
    undisturbed = planned_run(*words)
    wait_for("some steps", lambda: any(run.metrics()[4:] for run in begun(tmp_path / "frontier")))
    cluster.ask("scontrol", "requeue", job)
    assert train_together(undisturbed) == [(0, ""), (0, "")]
    wait_for("the end", lambda: not cluster.ask("squeue", "-h"))
    assert fate(cluster, job) == ("COMPLETED", 1)
    (run,) = begun(tmp_path / "frontier")
    record = run.record()
    assert (record.attempts, record.world_size) == (2, 2)
    assert record.science() == undisturbed.record().science()
    assert [row["loss"] for row in run.metrics()] == [row["loss"] for row in undisturbed.metrics()]


def begun(runs: Path) -> list[RunDirectory]:
    return list(run_directories(runs)) if runs.exists() else []
