"""What a cluster does to jobs, done to real ones: no cell is lost, none is trained twice to the end."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import CannotAnswer
from harness.runs import Status, read_owner
from harness.sweep.slurm.launch import Launcher
from harness.sweep.slurm.manifest import read_manifests
from harness.sweep.slurm.submit import withdraw
from tests.slurm.conftest import wait_for


def preempt(cluster) -> str:
    """A job of higher standing takes every processor."""
    words = ("--partition=high", "--nodes=3", "--exclusive", "--output=/dev/null", "--time=5")
    return cluster.ask("sbatch", "--parsable", *words, "--wrap=sleep 3")


def job_of(sweep, run_id: str) -> str:
    owner = read_owner(sweep.root / run_id)
    return owner.job.job


@pytest.mark.parametrize("partition", ["low", "abrupt"])
def test_preempted_with_and_without_grace(cluster, sweep, partition):
    mine = sweep(3, partition=partition)
    mine.hold(7)
    mine.launch()
    wait_for("all to start", lambda: all(mine.started(cell.run_id) for cell in mine.cells))
    preempt(cluster)
    wait_for("second attempts", lambda: all(mine.started(cell.run_id, 2) for cell in mine.cells))
    mine.behave()
    mine.finish()
    states = mine.states().values()
    assert [state.interruptions for state in states] == [1, 1, 1]


def test_out_of_time_it_saves_and_goes_on(cluster, sweep):
    """Limits are looked at every 30 seconds, so the warning comes within that of its time."""
    mine = sweep(1, time="1", warning_seconds=59)
    mine.hold(7)
    mine.launch()
    wait_for("a second attempt", lambda: mine.started("c000", 2))
    assert mine.states()["c000"].interruptions == 1
    mine.behave()
    mine.finish()


def test_requeued_by_hand(cluster, sweep):
    mine = sweep(3, cells_per_task=3)
    mine.hold(7, "c001")
    mine.launch()
    wait_for("the second cell", lambda: mine.started("c001"))
    cluster.ask("scontrol", "requeue", job_of(mine, "c001"))
    wait_for("its second attempt", lambda: mine.started("c001", 2))
    mine.behave()
    mine.finish()
    assert [state.interruptions for state in mine.states().values()] == [0, 1, 0]


def test_cancelled_is_final_until_it_is_typed_again(cluster, sweep):
    mine = sweep(4, cells_per_task=2)
    mine.hold(7)
    mine.launch()
    wait_for("both to start", lambda: mine.started("c000") and mine.started("c002"))
    gone = withdraw(mine.root, 600)
    assert (len(gone.cancelled), gone.left) == (2, [])
    assert cluster.ask("squeue", "-h") == ""
    assert mine.counts() == {"planned": 2, "interrupted": 2}
    mine.behave()
    assert [manifest.submitted for manifest in mine.launch().arrays] == [2]
    mine.finish()


def test_a_crashed_node_loses_nothing(cluster, sweep):
    mine = sweep(2)
    mine.hold(7)
    mine.launch()
    wait_for("both to start", lambda: mine.started("c000") and mine.started("c001"))
    node = read_owner(mine.root / "c000").job.node
    cluster.control("crash", node)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait_for("its second attempt", lambda: mine.started("c000", 2))
    mine.behave()
    mine.finish()
    assert mine.states()["c000"].interruptions == 1


def test_a_copy_on_a_cut_node_finds_itself_superseded(cluster, sweep):
    mine = sweep(1)
    mine.hold(7)
    mine.launch()
    wait_for("it to start", lambda: mine.started("c000"))
    first = read_owner(mine.root / "c000")
    cluster.control("cut", first.job.node)
    cluster.ask("scontrol", "update", f"nodename={first.job.node}", "state=down", "reason=test")
    assert Path(f"/proc/{first.process.pid}").exists()  # it knows of nothing
    wait_for("its successor", lambda: read_owner(mine.root / "c000").number == 2)
    second = read_owner(mine.root / "c000")
    assert (second.job.job, second.job.restarts) == (first.job.job, 1)
    mine.behave()
    wait_for("its end", lambda: not Path(f"/proc/{first.process.pid}").exists())
    mine.finish()
    cluster.control("up", first.job.node)
    assert read_owner(mine.root / "c000").number == 2
    assert (mine.root / "c000" / "superseded.txt").read_text() == "1"


def test_the_controller_restarts(cluster, sweep):
    mine = sweep(3, tasks_at_once=2)
    mine.hold(7)
    mine.launch()
    wait_for("the first", lambda: mine.started("c000"))
    cluster.control("restart")
    mine.behave()
    mine.finish()
    assert sum(state.interruptions for state in mine.states().values()) == 0


def test_a_failing_cell_is_tried_again_and_reported_and_holds_up_nobody(cluster, sweep):
    mine = sweep(4, cells_per_task=4, retries=2)
    mine.behave(fail=["c001"], steps=3)
    mine.launch()
    wait_for("the end", lambda: mine.counts() == {"done": 3, "failed": 1})
    wait_for("the task to end", lambda: not cluster.ask("squeue", "-h"))
    assert read_owner(mine.root / "c001").number == 3
    assert mine.states()["c001"].note == "planted"
    assert mine.launch().arrays == []
    mine.hold(0, steps=3)
    assert sum(manifest.submitted for manifest in mine.launch(retry_failed=True).arrays) == 1
    assert mine.counts() == {"queued": 1, "done": 3}
    assert mine.launch(retry_failed=True).arrays == []
    mine.behave(steps=3)
    mine.finish()


def test_a_cell_that_kills_its_task_comes_last(cluster, sweep):
    mine = sweep(3, cells_per_task=3, retries=2)
    mine.behave(kill=["c000"], steps=3)
    mine.launch()
    wait_for("the others", lambda: mine.states()["c002"].status is Status.done)
    mine.finish()
    assert read_owner(mine.root / "c000").number == 3


def test_a_cell_that_always_kills_its_task_has_failed_and_takes_nobody_with_it(cluster, sweep):
    mine = sweep(3, cells_per_task=3)
    mine.behave(out_of_memory=["c001"], steps=3)
    mine.launch()
    wait_for("the end", lambda: not cluster.ask("squeue", "-h"))
    assert mine.counts() == {"done": 2, "failed": 1}
    assert read_owner(mine.root / "c001").number == 2
    assert "killed by SIGKILL, as the kernel does when memory runs out" in mine.states()["c001"].note
    assert mine.launch().arrays == []
    mine.behave(steps=3)
    mine.launch(retry_failed=True)
    mine.finish()


def test_a_task_is_not_started_for_ever(cluster, sweep):
    mine = sweep(1, restarts=1)
    mine.behave(kill=["c000"], steps=3)
    mine.launch()
    wait_for("the end", lambda: not cluster.ask("squeue", "-h"))
    assert read_owner(mine.root / "c000").number == 2
    assert mine.counts() == {"lost": 1}
    assert "not requeued" in mine.output()
    mine.launch()
    mine.finish()


def test_more_tasks_than_an_array_may_have(cluster, sweep):
    mine = sweep(15, tasks_at_once=4)
    mine.behave(steps=2, seconds=0.01)
    arrays = mine.launch().arrays
    assert [len(array.tasks) for array in arrays] == [6, 6, 3]
    again = Launcher(mine.root, mine.launcher.config).launch(mine.cells, retry_failed=False)
    assert again.arrays == []
    mine.finish()


SBATCH = """#!/bin/sh
# As where an account may have three tasks in the queue. The array is asked for as --array=FIRST-LAST.
range=$(echo "$2" | sed 's/--array=//; s/%.*//')
held=$(squeue --noheader --array | wc -l)
if [ $((${range#*-} - ${range%-*} + 1 + held)) -gt 3 ]; then
  echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
  echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
  exit 1
fi
exec /usr/bin/sbatch "$@"
"""


def test_what_the_cluster_would_not_take_is_submitted_as_tasks_end(cluster, sweep, tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text(SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    mine = sweep(8)
    mine.hold(0, steps=3)  # no task may end and make room meanwhile
    launched = mine.launch()
    assert (sum(array.submitted for array in launched.arrays), launched.waiting) == (3, 5)
    assert "violates accounting/QOS policy" in launched.refusal
    assert mine.launch().waiting == 5  # typed again it packs the rest anew
    mine.behave(steps=3)
    mine.finish()
    cells = [run_id for array in read_manifests(mine.root) for task in array.tasks for run_id in task]
    assert sorted(cells) == [cell.run_id for cell in mine.cells]


def test_two_people_at_once_submit_every_cell_once(cluster, sweep):
    mine = sweep(5)
    code = (
        "import sys; from pathlib import Path; from harness.sweep.slurm.launch import Launcher;"
        "from harness.sweep.slurm.settings import SlurmConfig; from harness.sweep.plan import read_plan;"
        "root = Path(sys.argv[1]); Launcher(root, SlurmConfig(time='5'), command=tuple(sys.argv[2:]))"
        ".launch(read_plan(root), False)"
    )
    words = [sys.executable, "-c", code, str(mine.root), *mine.launcher.command]
    both = [subprocess.Popen(words), subprocess.Popen(words)]
    assert [process.wait(600) for process in both] == [0, 0]
    cells = [run_id for array in read_manifests(mine.root) for task in array.tasks for run_id in task]
    assert sorted(cells) == [cell.run_id for cell in mine.cells]
    mine.finish()


def test_a_full_disk_fails_what_it_must_and_what_is_typed_again_goes_on(cluster, sweep):
    mine = sweep(2, cells_per_task=2, retries=0)
    mine.behave(steps=3)
    small = mine.root / "c000"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]).returncode != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        with contextlib.suppress(OSError):
            (small / "something-large").write_bytes(bytes(200_000))
        mine.launch()
        wait_for("the end", lambda: not cluster.ask("squeue", "-h"))
        assert (mine.counts()["done"], mine.states()["c000"].finished) == (1, False)
        assert "No space left" in mine.output()
        (small / "something-large").unlink()
        mine.launch(retry_failed=True)
        mine.finish()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_queue_does_not_answer(cluster, sweep, tmp_path, monkeypatch):
    mine = sweep(1)
    mine.launch()
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no contact >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CannotAnswer, match="no contact; nothing was changed"):
        mine.launch()
    monkeypatch.undo()
