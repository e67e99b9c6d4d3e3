import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.sweep.plan import PLAN, PlannedCell, SweepConfig, products, read_plan, write_plan


def cell(name: str) -> PlannedCell:
    return PlannedCell(name, "27k", 1, 2, 3, 4, 5.0, 0.1, 0, "hash")


def test_a_plan_comes_back_and_is_stable(tmp_path):
    write_plan(tmp_path, [cell("a"), cell("b")], extend=False)
    text = (tmp_path / PLAN).read_text()
    write_plan(tmp_path, [cell("a"), cell("b")], extend=False)
    assert (tmp_path / PLAN).read_text() == text
    assert read_plan(tmp_path) == [cell("a"), cell("b")]


def test_another_plan_does_not_mix_in_by_accident(tmp_path):
    write_plan(tmp_path, [cell("a"), cell("b")], extend=False)
    with pytest.raises(CannotAnswer, match="another plan"):
        write_plan(tmp_path, [cell("a"), cell("c")], extend=False)
    write_plan(tmp_path, [cell("a"), cell("c")], extend=True)
    assert {c.run_id for c in read_plan(tmp_path)} == {"a", "b", "c"}


def test_a_larger_plan_of_the_same_cells_is_fine(tmp_path):
    write_plan(tmp_path, [cell("a")], extend=False)
    write_plan(tmp_path, [cell("a"), cell("b")], extend=False)
    assert len(read_plan(tmp_path)) == 2


def test_the_same_cell_twice_is_refused(tmp_path):
    with pytest.raises(WrongInput, match="twice"):
        write_plan(tmp_path, [cell("a"), cell("a")], extend=False)


def test_a_damaged_line_is_named(tmp_path):
    write_plan(tmp_path, [cell("a"), cell("b")], extend=False)
    (tmp_path / PLAN).write_text((tmp_path / PLAN).read_text()[:-20])
    with pytest.raises(WrongInput, match="line 2"):
        read_plan(tmp_path)


def test_no_axes_is_said_so():
    with pytest.raises(WrongInput, match=r"sweep\.axes"):
        products(SweepConfig())
