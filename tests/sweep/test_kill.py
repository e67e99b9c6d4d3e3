"""Killed cells: stopped wherever they run, never started again unless asked, and no runs of any fit."""

import json

import pytest

from harness.errors import CannotAnswer
from harness.runs import (
    FAILURE,
    KILLED,
    RECORD,
    AlreadyFinished,
    Killed,
    RunDirectory,
    Status,
    claim,
    finished_records,
    killed_reason,
    mark_killed,
    revive,
)
from harness.sweep import kill as killing
from harness.sweep.kill import Death, Ending, kill
from harness.sweep.ledger import survey
from harness.sweep.plan import read_plan

from .standin import blank_record
from .test_queues import now, planned_sweep, queue, wait_until

ROW = {"kind": "train", "step": 1, "tokens": 250, "loss": 3.0}
HOPELESS = Death("beats nobody", {"outlook": {"beats_best": 0.01}})


def test_a_killed_cell_stops_and_its_queue_goes_on_to_the_next(tmp_path):
    root = planned_sweep(tmp_path, "ab")
    working = queue(root, 1, 600)
    wait_until(lambda: now(root) == {"queued": 1, "running": 1})
    (first,) = [
        state.cell.run_id for state in survey(root, read_plan(root)) if state.status is Status.running
    ]
    assert kill(root, {first: HOPELESS}, 600) == {first: Ending.stopped}
    wait_until(lambda: now(root) == {"running": 1, "killed": 1})
    (second,) = {"a", "b"} - {first}
    kill(root, {second: HOPELESS}, 600)
    assert working.wait(600) == 0
    assert now(root) == {"killed": 2}
    assert json.loads((root / first / KILLED).read_text())["outlook"] == {"beats_best": 0.01}
    assert finished_records(root)[0] == []

    assert queue(root, 2, 0).wait(600) == 0  # as if `harness sweep` were typed again
    assert now(root) == {"killed": 2}
    assert all((root / name / "starts.txt").read_text() == "1\n" for name in "ab")
    assert revive(RunDirectory(root / first))
    assert queue(root, 2, 0).wait(600) == 0
    assert now(root) == {"done": 1, "killed": 1}


def test_a_process_that_cannot_be_asked_stops_at_its_next_row(tmp_path, monkeypatch):
    """As one on another machine: nothing but the mark reaches it."""
    run = RunDirectory(tmp_path / "a")
    attempt = claim(run)
    attempt.append_metrics([ROW])
    monkeypatch.setattr(killing, "cancel", lambda run, worker: False)
    assert kill(tmp_path, {"a": HOPELESS}, 0) == {"a": Ending.stopping}
    assert run.status() is Status.running
    with pytest.raises(Killed, match="was killed"):
        attempt.append_metrics([ROW])
    with pytest.raises(Killed):
        attempt.finish(blank_record(run_id="a", status="done"))
    attempt.fail("Killed: as it was told")
    assert not (run.path / FAILURE).exists()
    assert run.status() is Status.killed
    assert killed_reason(run) == "beats nobody"


def test_no_attempt_at_a_killed_run_begins_until_it_is_revived(tmp_path):
    run = RunDirectory(tmp_path / "a")
    claim(run).end()
    mark_killed(run, "beats nobody", {})
    with pytest.raises(CannotAnswer, match="retry_killed=true"):
        claim(run)
    assert revive(run)
    assert not revive(run)
    assert run.status() is Status.interrupted
    assert claim(run).number == 2
    assert json.loads((run.path / "revived-1.json").read_text())["reason"] == "beats nobody"


def test_what_has_finished_cannot_be_killed(tmp_path):
    run = RunDirectory(tmp_path / "a")
    claim(run).finish(blank_record(run_id="a", status="done", loss=2.0))
    with pytest.raises(AlreadyFinished):
        mark_killed(run, "too late", {})
    assert kill(tmp_path, {"a": HOPELESS}, 0) == {"a": Ending.finished}
    assert (run.path / RECORD).exists() and not (run.path / KILLED).exists()
    with pytest.raises(CannotAnswer, match="has not begun"):
        mark_killed(RunDirectory(tmp_path / "b"), "too early", {})
