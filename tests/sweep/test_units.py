import pytest

from harness.sweep.local import Child, Queue
from harness.sweep.plan import PlannedCell, plan_line
from harness.sweep.slots import LauncherConfig, build_slots
from harness.sweep.units import new_flops, shared_tokens, units


def cell(name: str, tokens: int, trunk: str = "", trunk_tokens: int = 0, width: int = 1) -> PlannedCell:
    return PlannedCell(
        name,
        "27k",
        1,
        2,
        tokens,
        4,
        float(width * tokens),
        0.1,
        0,
        name,
        trunk=trunk,
        trunk_tokens=trunk_tokens,
    )


LONG, SHORT = cell("long", 400, "t", 320), cell("short", 100, "t", 80)
WIDE, ALONE = cell("wide", 200, "u", 160, width=9), cell("alone", 405)


def test_cells_of_a_trunk_are_one_unit_shortest_first_and_the_largest_unit_comes_first():
    assert units([LONG, ALONE, SHORT, WIDE]) == [(WIDE,), (SHORT, LONG), (ALONE,)]
    assert units([]) == []


def test_cells_without_a_trunk_keep_the_order_of_their_size():
    cells = [cell(name, tokens) for name, tokens in [("a", 3), ("b", 5), ("c", 3), ("d", 4)]]
    assert [unit[0].run_id for unit in units(cells)] == ["b", "d", "a", "c"]


def test_a_cell_costs_what_no_shorter_one_has_trained():
    assert new_flops((SHORT, LONG)) == [100, 400 - 80]
    assert new_flops((ALONE,)) == [405]


@pytest.mark.parametrize("steps", [[1, 2, 3, 4, 5], [4, 5.66, 8, 11.3, 16]])
def test_five_horizons_cost_their_longest_trunk_and_all_cooldowns(steps):
    """(1 - c) D_max + c sum D for a cooldown of c: less than half of sum D."""
    tokens = [round(10_000 * s) for s in steps]
    unit = tuple(cell(str(n), n, "t", n - n // 5) for n in tokens)
    assert sum(new_flops(unit)) == pytest.approx(0.8 * max(tokens) + 0.2 * sum(tokens), rel=1e-4)
    assert sum(new_flops(unit)) < 0.5 * sum(tokens)


def test_what_lies_ready_is_not_trained_again():
    assert shared_tokens([(SHORT, LONG)], {"t": [60, 300, 350]}) == {"short": 60, "long": 300}
    assert shared_tokens([(ALONE,)], {"": [100]}) == {"alone": 0}


def test_a_state_at_the_end_of_a_run_leaves_it_nothing_to_train():
    constant = cell("constant", 100, "t", 100)
    again = cell("again", 100, "t", 100)
    assert shared_tokens([(constant, again, LONG)]) == {"constant": 0, "again": 0, "long": 100}


def test_siblings_wait_for_each_other_and_others_do_not(tmp_path):
    lines = [plan_line(one, {"config": {}, "tokens_path": ""}) for one in (LONG, SHORT, WIDE)]
    slots = build_slots(LauncherConfig(slots=3), [0])
    queue = Queue(tmp_path, lines, slots, retry_failed=False)
    assert queue.next_cell() == WIDE
    assert queue.next_cell() == SHORT
    queue.children.append(Child(SHORT, slots[0], None))
    assert queue.next_cell() is None
    queue.children.clear()
    assert queue.next_cell() == LONG
