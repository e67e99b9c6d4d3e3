import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.runs import CONFIG, PLAN, RunDirectory, finished_records
from harness.sweep.plan import (
    PlanLine,
    PlannedCell,
    SweepConfig,
    create_run,
    grids,
    merge_plan,
    plan_line,
    planned_line,
    read_lines,
    read_plan,
    run_ids,
    still_planned,
    write_plan,
)


def line(name: str, code: str = "code", tokens_path: str = "here") -> PlanLine:
    cell = PlannedCell(name, "27k", 1, 2, 3, 4, 5.0, 0.1, 0, "hash", code_version=code)
    return plan_line(cell, {"config": {"group": "g"}, "tokens_path": tokens_path})


def write(root, names: str, *, extend: bool = False, queued=set) -> list[str]:
    write_plan(root, [line(name) for name in names], queued, extend=extend)
    return run_ids(read_lines(root))


def test_a_plan_comes_back_and_is_stable(tmp_path):
    write(tmp_path, "ab")
    stamp = (tmp_path / PLAN).stat().st_mtime_ns
    assert write(tmp_path, "ab") == ["a", "b"]
    assert (tmp_path / PLAN).stat().st_mtime_ns == stamp
    assert read_plan(tmp_path) == [line("a").cell, line("b").cell]


def test_a_planned_cell_keeps_its_line_whatever_changes_later(tmp_path):
    write(tmp_path, "a")
    again = write_plan(tmp_path, [line("a", code="edited")], set, extend=False)
    assert [kept.cell.code_version for kept in again.lines] == ["code"]
    moved = write_plan(tmp_path, [line("a", code="edited", tokens_path="there")], set, extend=False)
    assert moved.lines[0].frozen == {"config": {"group": "g"}, "tokens_path": "there"}
    assert moved.lines[0].cell.code_version == "code"
    assert read_lines(tmp_path) == moved.lines


def test_a_plan_that_nobody_began_is_replaced(tmp_path):
    write(tmp_path, "ab")
    assert write_plan(tmp_path, [line("c")], set, extend=False).replaced == 2
    assert run_ids(read_lines(tmp_path)) == ["c"]


@pytest.mark.parametrize("how", ["begun", "queued"])
def test_another_plan_does_not_mix_in_by_accident(tmp_path, how):
    write(tmp_path, "ab")
    if how == "begun":
        (tmp_path / "b").mkdir()
    waited_for = {"b"} if how == "queued" else set()

    def queued() -> set[str]:
        return waited_for

    for act in (write_plan, merge_plan):
        with pytest.raises(CannotAnswer, match=r"another plan.*e\.g\. b"):
            act(tmp_path, [line("a"), line("c")], queued, extend=False)
    assert run_ids(read_lines(tmp_path)) == ["a", "b"]
    assert write(tmp_path, "ac", extend=True, queued=queued) == ["b", "a", "c"]


def test_a_plan_whose_cells_are_being_handed_to_a_queue_is_not_replaced(tmp_path):
    """Whoever plans something else meanwhile waits, and then sees the queue."""
    write(tmp_path, "a")
    queue: list[str] = []
    with ThreadPoolExecutor() as pool:
        with still_planned(tmp_path, ["a"]):
            other = pool.submit(write, tmp_path, "b", queued=lambda: queue)
            with pytest.raises(TimeoutError):
                other.result(0.2)
            queue.append("a")
        with pytest.raises(CannotAnswer, match=r"another plan.*e\.g\. a"):
            other.result(10)
    assert run_ids(read_lines(tmp_path)) == ["a"]


def test_cells_of_a_plan_that_was_replaced_are_not_handed_to_a_queue(tmp_path):
    write(tmp_path, "ab")
    write(tmp_path, "c")
    with pytest.raises(CannotAnswer, match="another plan by now"), still_planned(tmp_path, ["a"]):
        pytest.fail("handed over")


def test_a_larger_plan_of_the_same_cells_is_fine(tmp_path):
    write(tmp_path, "a")
    (tmp_path / "a").mkdir()
    assert write(tmp_path, "ab") == ["a", "b"]


def test_the_same_cell_twice_is_refused_and_named_once(tmp_path):
    with pytest.raises(WrongInput, match="twice: a;"):
        write(tmp_path, "abaa")
    with pytest.raises(WrongInput, match="twice: a and 1 more"):
        write(tmp_path, "abab")
    assert not (tmp_path / PLAN).exists()


def test_a_line_cut_short_is_named(tmp_path):
    write(tmp_path, "ab")
    (tmp_path / PLAN).write_text((tmp_path / PLAN).read_text()[:-20])
    with pytest.raises(WrongInput, match="line 2"):
        read_plan(tmp_path)


@pytest.mark.parametrize(("old", "new"), [('"seed": 0', '"seed": 1'), ('"group": "g"', '"group": "h"')])
def test_an_edited_line_is_refused_wherever_the_edit_is(tmp_path, old, new):
    write(tmp_path, "ab")
    first, second = (tmp_path / PLAN).read_text().splitlines()
    (tmp_path / PLAN).write_text(f"{first}\n{second.replace(old, new)}\n")
    with pytest.raises(WrongInput, match="line 2 was edited"):
        read_plan(tmp_path)
    with pytest.raises(WrongInput, match="line 2 was edited"):
        planned_line(tmp_path, "b")
    assert planned_line(tmp_path, "a") == line("a")
    assert planned_line(tmp_path, "c") is None


def test_a_plan_of_the_first_version_is_read(tmp_path):
    """It had neither configs nor hashes in its lines."""
    cell = {"run_id": "a", "model": "27k", "params_non_embedding": 1, "params_total": 2, "tokens": 3}
    cell |= {"steps": 4, "flops": 5.0, "lr": 0.1, "seed": 0, "config_hash": "hash"}
    (tmp_path / PLAN).write_text(json.dumps(cell) + "\n")
    (old,) = read_lines(tmp_path)
    assert (old.cell.run_id, old.frozen) == ("a", None)
    (tmp_path / "a").mkdir()
    assert write(tmp_path, "a") == ["a"]


def test_a_run_is_made_from_its_line(tmp_path):
    run = create_run(tmp_path, line("a"))
    assert run.config() == {
        "hash": "hash",
        "config": {"group": "g"},
        "tokens_path": "here",
        "planned_code_version": "code",
    }
    (run.path / CONFIG).write_text("{")
    with pytest.raises(WrongInput, match="damaged"):
        create_run(tmp_path, line("a"))


def test_cells_that_nobody_began_are_named_among_the_runs_left_out(tmp_path):
    write(tmp_path / "sweep", "ab")
    create_run(tmp_path / "sweep", line("a"))
    for root in (tmp_path, tmp_path / "sweep"):
        records, skipped = finished_records(root)
        assert records == []
        assert [(skip.name, skip.reason) for skip in skipped] == [("a", "planned"), ("b", "planned")]


def test_no_axes_is_said_so():
    with pytest.raises(WrongInput, match=r"sweep\.axes"):
        grids(SweepConfig())
    with pytest.raises(WrongInput, match=r"sweep\.tied has an empty group"):
        grids(SweepConfig(axes=["seed=1"], tied=[[]]))


def test_tied_axes_come_first_and_more_grids_after():
    sweep = SweepConfig(axes=["seed=0,1"], tied=[["model=27k,56k", "optim.lr=1,2"]], also=[["seed=7", "x=1"]])
    assert grids(sweep) == [
        [["model=27k,56k", "optim.lr=1,2"], ["seed=0,1"]],
        [["seed=7"], ["x=1"]],
    ]


def test_the_plan_is_lines_of_json_that_other_tools_read(tmp_path):
    write(tmp_path, "ab")
    rows = [json.loads(text) for text in (tmp_path / PLAN).read_text().splitlines()]
    assert [row["run_id"] for row in rows] == ["a", "b"]
    assert rows[0]["frozen"] == {"config": {"group": "g"}, "tokens_path": "here"}
    assert RunDirectory(tmp_path / "a").status().value == "planned"
