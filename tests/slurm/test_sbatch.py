"""Handing jobs in to an sbatch that refuses, waits or says nothing; what then waits. No Slurm is needed."""

from pathlib import Path

import pytest

from harness.sweep.slurm import sbatch
from harness.sweep.slurm.feed import feed
from harness.sweep.slurm.manifest import Manifest, read_manifests, write_manifest
from harness.sweep.slurm.sbatch import Full, submit_job
from harness.sweep.slurm.scheduler import NoAnswer, Refused
from harness.sweep.slurm.submit import submit_waiting
from tests.slurm.conftest import wait_for

WAITS = "echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying' >&2"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a shell script in the place of one of Slurm's commands."""

    def put(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return put


def test_one_that_would_wait_is_ended_with_all_that_it_started(command, tmp_path):
    command("sbatch", f"sleep 300 & echo $! > {tmp_path}/pid; {WAITS}; wait")
    with pytest.raises(Full, match=r"^sbatch: Slurm temporarily unable to accept job$"):
        submit_job(["sbatch"])
    wait_for("its end", lambda: not runs(int((tmp_path / "pid").read_text())))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_one_that_got_in_after_all_is_believed(command):
    command("sbatch", f"echo 42; {WAITS}; sleep 300")
    assert submit_job(["sbatch"]) == "42"
    command("sbatch", "echo '43;cluster'; echo warning >&2")
    assert submit_job(["sbatch"]) == "43"


def test_one_that_says_nothing_is_not_waited_for(command, monkeypatch):
    with monkeypatch.context() as impatient:
        impatient.setattr(sbatch, "SUBMIT_SECONDS", 0.3)
        command("sbatch", "sleep 300")
        with pytest.raises(NoAnswer, match="did not answer"):
            submit_job(["sbatch"])
        command("sbatch", "sleep 300 & exit 0")
        with pytest.raises(NoAnswer, match="did not answer"):
            submit_job(["sbatch"])
    command("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(Refused, match=r"^sbatch: Invalid account$"):
        submit_job(["sbatch"])


@pytest.mark.parametrize(("room", "arrays"), [(3, ["0-1", "2-4"]), (0, [])])
def test_where_it_would_wait_fewer_are_tried_and_none_twice(command, tmp_path, room, arrays):
    """One that waited got in all the same: then the queue has it."""
    command("squeue", "true")
    command(
        "sbatch",
        f"""range=${{2#--array=}}; first=${{range%-*}}; last=${{range#*-}}
        [ $((last - first)) -lt {room} ] || {{ {WAITS}; sleep 300; }}
        echo $range >> {tmp_path}/taken; echo 7""",
    )
    write_manifest(tmp_path, Manifest(1, "mine-0001", tuple((name,) for name in "abcde")))
    assert bool(submit_waiting(tmp_path, None)) == (not arrays)
    taken = tmp_path / "taken"
    assert (taken.read_text().split() if arrays else []) == arrays
    command("sbatch", f"{WAITS}; sleep 300")
    command("squeue", 'for i in 0 1 2 3 4; do echo "mine-0001|9|$i|PENDING|None"; done')
    assert submit_waiting(tmp_path, None) == ""
    (manifest,) = read_manifests(tmp_path)
    assert (manifest.waits, manifest.jobs[-1]) == (0, "7" if arrays else "9")


RUNNING, PENDING = "echo 'mine-0001|7|1|RUNNING|None'", "echo 'mine-0001|7|1|PENDING|None'"
REFUSES = "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1"
RUNS = "echo 'JobId=7 JobState=RUNNING Restarts=0 x'"
REPLACED = "echo 'JobId=7 JobState=RUNNING Restarts=1 x'"


@pytest.mark.parametrize(
    ("squeue", "sbatch", "scontrol", "takes"),
    [
        (RUNNING, REFUSES, RUNS, True),  # it may end at this very moment too
        (PENDING, REFUSES, RUNS, False),  # it will try again
        (RUNNING, "echo 9", RUNS, False),  # submitted
        ("exit 1", REFUSES, RUNS, True),  # there may be nobody else
        (RUNNING, REFUSES, REPLACED, False),  # a node that was cut off; its successor will
    ],
)
def test_a_task_that_ends_takes_over_what_nobody_else_would(
    command, tmp_path, monkeypatch, squeue, sbatch, scontrol, takes
):
    for name, script in {"squeue": squeue, "sbatch": sbatch, "scontrol": scontrol}.items():
        command(name, script)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    first = Manifest(1, "mine-0001", (("a",), ("b",)), submitted=2, jobs=("7",), settings="x")
    other = Manifest(2, "mine-0002", (("c",),), settings="y")
    last = Manifest(3, "mine-0003", (("d", "e"), ("f",)), failed_before={"e": 1, "f": 2}, settings="x")
    for manifest in (first, other, last):
        write_manifest(tmp_path, manifest)
    assert feed(tmp_path, 1, 0) is takes
    mine, _, rest = read_manifests(tmp_path)
    if takes:
        assert (mine.tasks, mine.failed_before) == ((("a", "d", "e"), ("b",)), {"e": 1})
        assert (rest.tasks, rest.submitted) == (((), ("f",)), 1)
        assert feed(tmp_path, 1, 0) is True and not feed(tmp_path, 1, 0)  # what asks for more is left
        assert read_manifests(tmp_path)[0].tasks[0] == ("a", "d", "e", "f")
    else:
        assert mine == first


def test_of_its_own_array_too(command, tmp_path, monkeypatch):
    for name in ("squeue", "sbatch"):
        command(name, "exit 1")
    command("scontrol", RUNS)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    write_manifest(tmp_path, Manifest(1, "mine-0001", (("a",), ("b",), ("c",)), submitted=1, jobs=("7",)))
    assert feed(tmp_path, 1, 0)
    (mine,) = read_manifests(tmp_path)
    assert (mine.tasks, mine.waits) == ((("a", "b"), (), ("c",)), 1)
