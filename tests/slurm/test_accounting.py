"""What sacct says of cells that went no further: planted answers. For real ones see test_caps.py."""

import time

import pytest

from harness.runs import JobAttempt, Owner, Process, RunDirectory, Status
from harness.runs.attempt import write_owner
from harness.sweep.ledger import CellState
from harness.sweep.plan import PlannedCell
from harness.sweep.slurm import accounting
from harness.sweep.slurm.accounting import explained, parse
from harness.sweep.slurm.manifest import Manifest, write_manifest

ROWS = """\
17_0|NODE_FAIL|1:0|n3
17_1|TIMEOUT|0:0|n1
17_[3,5-6%2]|CANCELLED by 1000|0:0|None assigned
18_4|OUT_OF_MEMORY|0:125|n2
18_5|RUNNING|0:0|n2
18_6|COMPLETED|0:0|n[1-2]
18|FAILED|1:0|n1
nonsense
17_[x]|FAILED|1:0|n1
"""


def test_rows_of_one_task_and_of_many():
    cancelled = "CANCELLED by 1000"
    assert parse(ROWS) == {
        ("17", 0): "NODE_FAIL 1:0 on n3",
        ("17", 1): "TIMEOUT on n1",
        ("17", 3): cancelled,
        ("17", 5): cancelled,
        ("17", 6): cancelled,
        ("18", 4): "OUT_OF_MEMORY 0:125 on n2",
        ("18", 6): "COMPLETED on n[1-2]",
    }
    assert parse("") == {}


@pytest.fixture
def sacct(tmp_path, monkeypatch):
    """Puts a shell script in the place of sacct."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin")

    def put(script: str) -> None:
        (tmp_path / "bin" / "sacct").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\n{script}\n')
        (tmp_path / "bin" / "sacct").chmod(0o755)

    return put


def state(name: str, status: Status, note: str = "") -> CellState:
    return CellState(PlannedCell(name, "27k", 1, 2, 30, 30, 5.0, 0.1, 0, name), status, note=note)


STATES = [
    state("lost", Status.lost),
    state("interrupted", Status.interrupted),
    state("never", Status.planned),
    state("waits", Status.planned),
    state("failed", Status.failed, "planted"),
    state("done", Status.done),
    state("queued", Status.queued),
    state("here", Status.interrupted),
]


@pytest.fixture
def root(tmp_path):
    """Two jobs that had the cells above, but for `waits`, which none had; `here` was trained without."""
    names = [one.cell.run_id for one in STATES if one.cell.run_id != "waits"]
    tasks = tuple((name,) for name in names)
    write_manifest(
        tmp_path, Manifest(1, "mine-0001", (*tasks, ("waits",)), submitted=len(tasks), jobs=("17",))
    )
    write_manifest(tmp_path, Manifest(2, "mine-0002", (("lost",), ("never",)), submitted=1, jobs=("18",)))
    for name, job in [("lost", "18_0"), ("interrupted", "17_1"), ("here", "")]:
        attempt = JobAttempt(job, 0, "n1") if job else None
        owner = Owner(Process("elsewhere", 1, "1"), "token", 1, 0, job=attempt)
        write_owner(RunDirectory(tmp_path / name), owner, ended=name != "lost")
    return tmp_path


def notes(states: list[CellState]) -> dict[str, str]:
    return {one.cell.run_id: one.note for one in states if one.note}


def test_the_last_job_of_a_cell_says_why_and_of_no_other(root, sacct):
    sacct("echo '17_0|TIMEOUT|0:0|n1'; echo '18_0|NODE_FAIL|1:0|n3'; echo '17_[1-6]|CANCELLED by 0|0:0|'")
    found = explained(root, STATES)
    assert notes(found) == {
        "lost": "job 18_0 ended, says sacct: NODE_FAIL 1:0 on n3",
        "interrupted": "job 17_1 ended, says sacct: CANCELLED by 0",
        "never": "job 17_2 ended, says sacct: CANCELLED by 0",
        "failed": "planted",
    }
    assert [one.status for one in found] == [one.status for one in STATES]
    (asked,) = (root / "asked").read_text().splitlines()
    assert asked.endswith("--jobs=17,18")


def test_it_is_not_asked_when_files_and_queue_say_all(root, sacct):
    sacct("exit 1")
    assert explained(root, STATES[3:]) == STATES[3:]
    assert not (root / "asked").exists()


@pytest.mark.parametrize(
    "script",
    [
        "echo 'Slurm accounting storage is disabled' >&2; exit 1",
        "echo '17_1|FAILED|1:0|n1'; exit 1",
        "sleep 300",
        "head -c 1000 /dev/urandom",
        "echo '17_99|FAILED|1:0|n1'; echo '99_1|FAILED|1:0|n1'",
        None,
    ],
)
def test_without_a_working_sacct_nothing_is_said(root, sacct, monkeypatch, script):
    monkeypatch.setattr(accounting, "SECONDS", 0.3)
    if script is not None:
        sacct(script)
    before = time.monotonic()
    assert explained(root, STATES) == STATES
    assert time.monotonic() - before < 60
