"""Several real processes on one sweep, with a stand-in for training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main
from harness.runs import CONFIG, Process, Status, claim, content_hash, read_owner, write_json
from harness.sweep import stop as stopping
from harness.sweep.ledger import counts, survey
from harness.sweep.local import Queue
from harness.sweep.plan import (
    PlannedCell,
    create_run,
    plan_line,
    planned_line,
    read_lines,
    read_plan,
    write_plan,
)
from harness.sweep.queues import QUEUES, living_queues, registered
from harness.sweep.slots import LauncherConfig, build_slots, own_cores
from harness.sweep.slurm.jobs import Jobs
from harness.sweep.slurm.manifest import Manifest, write_manifest
from harness.sweep.slurm.scheduler import Task
from tests.sweep.standin import blank_record

STANDIN = Path(__file__).with_name("standin.py")


def planned_sweep(root: Path, names: str) -> Path:
    """A plan of cells that only the stand-in can train."""
    cells = [PlannedCell(name, "27k", 1, 2, 3, 4, 5.0, 0.1, 0, content_hash(name)) for name in names]
    frozen = {"config": {}, "tokens_path": ""}
    write_plan(root, [plan_line(cell, frozen) for cell in cells], set, extend=False)
    return root


def queue(root: Path, slots: int, seconds: float) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(STANDIN), "queue", str(root), str(slots), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=root)


def now(root: Path) -> dict[str, int]:
    return counts(survey(root, read_plan(root)))


def wait_until(condition, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def test_two_sweeps_at_once_start_every_cell_once(tmp_path):
    root = planned_sweep(tmp_path, "abcdef")
    both = [queue(root, 2, 0.2), queue(root, 2, 0.2)]
    assert [process.wait(600) for process in both] == [0, 0]
    assert now(root) == {"done": 6}
    starts = {run.parent.name: run.read_text() for run in root.glob("*/starts.txt")}
    assert starts == dict.fromkeys("abcdef", "1\n")
    assert list(root.glob("*/refusals.txt")) == []  # nor did they get into each other's way
    assert living_queues(root) == []


def test_stop_ends_what_was_started_elsewhere_and_it_goes_on_later(tmp_path, capsys):
    root = planned_sweep(tmp_path / "runs" / "mine", "abc")
    working = queue(root, 2, 600)
    wait_until(lambda: now(root) == {"queued": 1, "running": 2})
    pids = {owner.process.pid for name in "ab" if (owner := read_owner(root / name))}

    words = ["group=mine", f"runs_dir={tmp_path / 'runs'}"]
    assert main(["stop", *words]) == 0
    said = capsys.readouterr().out
    assert all(f"process {pid}" in said for pid in {*pids, working.pid})
    assert working.wait(600) == 130
    assert now(root) == {"planned": 1, "interrupted": 2}
    assert main(["stop", *words]) == 0
    assert "nothing was stopped" in capsys.readouterr().out

    assert queue(root, 3, 0).wait(600) == 0
    states = survey(root, read_plan(root))
    assert counts(states) == {"done": 3}
    assert [state.interruptions for state in states] == [1, 1, 0]


def test_what_vanished_is_lost_and_goes_on(tmp_path, capfd):
    root = planned_sweep(tmp_path, "ab")
    working = queue(root, 1, 600)
    wait_until(lambda: now(root) == {"running": 1, "queued": 1})
    os.kill(read_owner(root / "a").process.pid, signal.SIGKILL)
    wait_until(lambda: now(root) == {"lost": 1, "running": 1})  # and not queued, for its turn is over
    os.kill(read_owner(root / "b").process.pid, signal.SIGKILL)
    assert working.wait(600) == 0
    assert now(root) == {"lost": 2}
    assert "a: its process was killed by SIGKILL, as the kernel does when memory" in capfd.readouterr().err
    assert queue(root, 1, 0).wait(600) == 0
    states = survey(root, read_plan(root))
    assert [(state.status, state.interruptions) for state in states] == [(Status.done, 1)] * 2


def test_a_cell_that_another_queue_lost_is_taken_over_and_one_that_failed_there_is_not(tmp_path):
    """Else two queues that retry what failed would hand it back and forth for ever."""
    root = planned_sweep(tmp_path, "ab")
    lost, failed = (claim(create_run(root, planned_line(root, name))) for name in "ab")
    here = Queue(root, read_lines(root), build_slots(LauncherConfig(slots=1), [0]), retry_failed=True)
    assert here.waiting == []
    lost.end()
    failed.fail("not a number")
    here.refresh()
    assert [cell.run_id for cell in here.waiting] == ["a"]


def test_cells_that_slurm_holds_are_left_to_it(tmp_path):
    root = planned_sweep(tmp_path, "abc")
    task, manifest = Task("mine", "7", 0, "PENDING", "Priority"), Manifest(1, "mine", (("a", "b"),))
    jobs = Jobs({"a": (task, manifest), "b": (task, manifest)}, frozenset({"7"}), {task.id: task})
    slots = build_slots(LauncherConfig(slots=1), own_cores())

    def command(run: Path) -> list[str]:
        other = claim(create_run(root, planned_line(root, "b")))  # a task has finished it meanwhile
        other.finish(blank_record(run_id="b", status="done"))
        return [sys.executable, str(STANDIN), "train", str(run), "0"]

    here = Queue(root, read_lines(root), slots, False, command, jobs)
    here.run(lambda _: None)
    states = {name: (state.status, state.job) for name, state in here.states.items()}
    assert states == {"a": (Status.queued, "7_0"), "b": (Status.done, ""), "c": (Status.done, "")}
    assert not (root / "a").exists()


@pytest.mark.parametrize(
    ("reason", "note"),
    [("Priority", "failed before: not a number"), ("NodeDown", "job 7_0 pending: NodeDown")],
)
def test_a_cell_that_waits_for_another_try_says_why(tmp_path, reason, note):
    root = planned_sweep(tmp_path, "a")
    claim(create_run(root, planned_line(root, "a"))).fail("not a number")
    task, manifest = Task("mine", "7", 0, "PENDING", reason), Manifest(1, "mine", (("a",),), allowed=2)
    (state,) = survey(root, read_plan(root), Jobs({"a": (task, manifest)}, frozenset({"7"}), {}))
    assert (state.status, state.note) == (Status.queued, note)


def test_stop_ends_what_runs_here_where_slurm_does_not_answer(tmp_path, capsys, monkeypatch):
    root = planned_sweep(tmp_path / "runs" / "mine", "a")
    write_manifest(root, Manifest(1, "mine", (("b",),), submitted=1, jobs=("7",)))
    working = queue(root, 1, 600)
    wait_until(lambda: now(root) == {"running": 1})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["stop", "group=mine", f"runs_dir={tmp_path / 'runs'}"]) == 1
    out, err = capsys.readouterr()
    assert "stopped a sweep" in out and "may still run: squeue is not here" in err
    assert working.wait(600) == 130


def test_a_process_that_took_over_a_pid_is_not_stopped(tmp_path):
    root = planned_sweep(tmp_path, "a")
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        write_json(root / QUEUES / "old.json", queue_of(innocent.pid, "0", os.uname().nodename))
        assert stopping.stop(root, 1).stopped == []
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_what_runs_on_another_machine_is_said_and_left_alone(tmp_path, capsys):
    root = planned_sweep(tmp_path / "runs" / "mine", "a")
    write_json(root / QUEUES / "far.json", queue_of(1, "0", "far"))
    assert now(root) == {"queued": 1}
    assert main(["stop", "group=mine", f"runs_dir={tmp_path / 'runs'}"]) == 1
    assert "on far" in capsys.readouterr().err
    long_ago = time.time() - 3600
    os.utime(root / QUEUES / "far.json", (long_ago, long_ago))
    assert now(root) == {"planned": 1}


def queue_of(pid: int, start: str, host: str) -> dict[str, object]:
    return {"host": host, "pid": pid, "process_start": start, "cells": ["a"]}


def test_a_queue_is_registered_while_it_lives(tmp_path):
    with pytest.raises(KeyboardInterrupt), registered(tmp_path, ["a", "b"]) as beat:
        beat(["a", "b"])
        (found,) = living_queues(tmp_path)
        assert (found.process.pid, found.cells) == (os.getpid(), ("a", "b"))
        beat(["b"])
        assert living_queues(tmp_path)[0].cells == ("b",)
        raise KeyboardInterrupt
    assert living_queues(tmp_path) == []


def test_one_process_does_not_live_on_in_another(tmp_path):
    mine = Process(os.uname().nodename, os.getpid(), "0")
    assert not mine.is_alive(time.time())


def test_a_damaged_run_does_not_stop_the_others(tmp_path):
    root = planned_sweep(tmp_path, "ab")
    (create_run(root, planned_line(root, "a")).path / CONFIG).write_text("{")
    assert queue(root, 1, 0).wait(600) == 0
    assert now(root) == {"planned": 1, "done": 1}


def test_a_failed_cell_counts_its_failures_apart(tmp_path):
    root = planned_sweep(tmp_path, "a")
    run = create_run(root, planned_line(root, "a"))
    claim(run).fail("out of memory")
    claim(run).end()
    claim(run).fail("out of disk")
    (state,) = survey(root, read_plan(root))
    assert (state.status, state.note, state.interruptions) == (Status.failed, "out of disk", 1)
