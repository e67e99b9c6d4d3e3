import json

import pytest

from harness.report.tables import LONGEST, print_plan, print_states
from harness.runs import ATTEMPT, METRICS, RECORD, RunDirectory, RunRecord, Status, claim, mark_killed
from harness.sweep.ledger import CellState, counts, survey
from harness.sweep.plan import PlannedCell
from harness.sweep.queues import registered

BLANK = {"str": "", "int": 0, "float": 0.0, "bool": False}


def cell(name: str) -> PlannedCell:
    return PlannedCell(name, "27k", 10, 20, 1000, 4, 5.0, 0.1, 0, "hash")


def finish(run: RunDirectory, **known: object) -> None:
    fields = {name: BLANK.get(str(kind)) for name, kind in RunRecord.__annotations__.items()}
    attempt = claim(run)
    attempt.finish(RunRecord(**{**fields, "run_id": run.run_id, "status": "done", **known}))


@pytest.fixture
def states(tmp_path) -> dict[str, CellState]:
    """One cell in each state."""
    run = {status: RunDirectory(tmp_path / status.value) for status in Status}
    finish(run[Status.done], attempts=4, failed_attempts=1, loss=2.0, planned_code_version="older")
    finish(run[Status.diverged], status="diverged", reason="loss not finite", loss=None)
    finish(run[Status.damaged])
    record = run[Status.damaged].path / RECORD
    record.write_text(record.read_text().replace('"run_id": "damaged"', '"run_id": "other"'))
    claim(run[Status.running]).append_metrics([{"kind": "train", "step": 1, "tokens": 250, "loss": 3.0}])
    claim(run[Status.failed]).fail("out of memory")
    claim(run[Status.interrupted]).end()
    claim(run[Status.killed]).end()
    mark_killed(run[Status.killed], "beats nobody", {})
    claim(run[Status.lost])
    owner = run[Status.lost].path / ATTEMPT
    owner.write_text(json.dumps({**json.loads(owner.read_text()), "process_start": "0"}))
    cells = [cell(status.value) for status in Status]
    with registered(tmp_path, ["queued", "running", "done"]):
        return {state.cell.run_id: state for state in survey(tmp_path, cells)}


def test_every_state_is_told_apart(states):
    assert {name: state.status.value for name, state in states.items()} == {name: name for name in states}
    assert list(counts(list(states.values())).values()) == [1] * len(Status)


def test_what_is_said_of_each(states):
    assert states["failed"].note == "out of memory"
    assert "edited" in states["damaged"].note
    assert (states["running"].tokens, states["running"].loss) == (250, 3.0)
    assert (states["done"].interruptions, states["done"].code_changed) == (2, True)
    assert states["diverged"].note == "loss not finite"
    assert [states[name].interruptions for name in ("interrupted", "lost", "running", "failed")] == [
        1,
        1,
        0,
        0,
    ]


def test_an_interrupted_cell_that_a_queue_holds_is_queued(tmp_path):
    claim(RunDirectory(tmp_path / "a")).end()
    with registered(tmp_path, ["a"]):
        (state,) = survey(tmp_path, [cell("a")])
    assert (state.status, state.interruptions) == (Status.queued, 1)


def test_cells_that_have_not_begun_cost_one_listing(tmp_path, monkeypatch):
    (tmp_path / "begun").mkdir()
    opened: list[str] = []
    monkeypatch.setattr("harness.sweep.ledger.look", lambda run, *_: opened.append(run.run_id))
    survey(tmp_path, [cell("begun"), *(cell(f"c{number}") for number in range(100))])
    assert opened == ["begun"]


def test_a_long_sweep_shows_what_is_under_way_or_in_trouble(states, capsys):
    many = [CellState(cell(f"c{number}"), Status.done) for number in range(LONGEST)]
    print_states("g", [*many, *states.values()])
    out = capsys.readouterr().out
    shown = [line.split()[-1] for line in out.splitlines() if line.startswith(tuple(states))]
    assert {"running", "failed", "lost", "diverged"} <= set(shown)
    assert "c0" not in out
    assert f"{len(many) + len(Status)} cells: 1 planned, 1 queued, 1 running" in out
    assert "failed: out of memory" in out
    assert "killed: beats nobody" in out
    assert "interrupted: 4 cells, 5 times in all" in out
    assert "trained by other code than planned with: 1 cell\n" in out


def test_a_long_plan_ends_in_its_totals(capsys):
    cells = [CellState(cell(f"c{number}"), Status.planned) for number in range(LONGEST + 5)]
    print_plan("g", cells, "USD")
    out = capsys.readouterr().out
    assert "... and 5 more" in out
    assert "still to do 65 cells, 325 FLOPs" in out
    assert "time unknown" in out


def test_the_metrics_of_a_finished_cell_are_not_read(tmp_path):
    run = RunDirectory(tmp_path / "a")
    finish(run)
    (run.path / METRICS).mkdir()
    (state,) = survey(tmp_path, [cell("a")])
    assert state.status is Status.done
