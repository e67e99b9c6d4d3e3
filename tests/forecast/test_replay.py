"""The chooser on finished public tables, and what a cell of a trunk costs it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.commands.next_runs import marginal_cost
from harness.errors import CannotAnswer
from harness.forecast.backtest import split
from harness.forecast.replay import (
    FIRST,
    SHARES,
    Moment,
    Order,
    Replay,
    Table,
    chosen,
    plan_within,
    replay,
    resampled_distance,
)
from harness.laws.tables import observations_from_table
from harness.report.replay import replay_figure
from harness.sweep.plan import PlannedCell

from ..public_data import planted_sweep, public_table

RECORD = [
    ("chinchilla_epoch.csv", "excluded_by_epoch=0", 0.1),
    ("gadre_overtrain.csv", "group=rw_original", 0.3),
]


@pytest.mark.parametrize(("file", "where", "share"), RECORD)
def test_well_chosen_runs_say_what_the_full_table_says(file, where, share):
    """Within a share of the FLOPs the bet comes as near to the full table's as nine in ten of its own
    resamples, and nearer than the cheapest runs come for as much. Rows of 2404.10102 and 2403.08540."""
    rows, held = split(observations_from_table(public_table(file), [where]), 8.0)
    table = Table(rows, held, 1e-3)
    whole = table.fit(range(len(rows)))
    full = whole.log_loss(held.columns)
    distance = {}
    for order in (Order.design, Order.grid):
        trained = chosen(table, order, 0, share)
        assert rows.flops[trained].sum() <= share * rows.flops.sum()
        distance[order] = float(np.abs(table.bet(trained) - full).mean())
    assert distance[Order.design] <= resampled_distance(whole, held, full) < distance[Order.grid]


@pytest.fixture(scope="module")
def planted() -> Table:
    return Table(*split(planted_sweep(2, 0.003, sizes=7, horizons=6), 8.0), 1e-3)


def test_every_order_begins_with_the_same_runs_and_trains_each_once(planted):
    trained = {order: chosen(planted, order, 1, 0.5) for order in Order}
    firsts = {tuple(numbers[:FIRST]) for numbers in trained.values()}
    assert len(firsts) == 1 and len(set(*firsts)) == FIRST
    assert all(len(set(numbers)) == len(numbers) for numbers in trained.values())
    assert sorted(chosen(planted, Order.grid, 1, 1.01)) == list(range(len(planted.rows)))


def test_a_loss_is_not_looked_at_before_its_run_is_trained(planted):
    trained = chosen(planted, Order.random, 0, 0.1)
    budget = 0.3 * float(planted.rows.flops.sum())
    known = np.isin(np.arange(len(planted.rows)), trained)
    loss = np.where(known, planted.rows.loss, planted.rows.loss * 1.5)
    altered = replace(planted, rows=replace(planted.rows, loss=loss))
    plan = plan_within(planted, trained, budget)
    assert plan == plan_within(altered, trained, budget)
    assert planted.rows.flops[plan].sum() <= budget and not set(plan) & set(trained)


def test_too_few_runs_are_refused():
    with pytest.raises(CannotAnswer, match=r"too few to choose among|cannot test that ratio"):
        replay(planted_sweep(1, 0.005), 8.0, 1e-3, 1)


def test_a_replay_is_summarised_over_seeds_and_drawn_with_its_command():
    moments = tuple(
        Moment(order, seed, share, 0.9 * share, 9, 0.02, 0.01 * (1 + seed))
        for order in Order
        for seed in range(3)
        for share in SHARES
    )
    found = Replay(moments, full_error=0.01, full_noise=0.02, runs=30, flops=1e18).to_json()
    assert len(found["summary"]) == len(Order) * len(SHARES)
    first = found["summary"][0]
    assert first["distance"] == pytest.approx(0.02) and first["distance_range"] == pytest.approx([0.01, 0.03])
    assert first["reached"] == pytest.approx(2 / 3)
    drawn = replay_figure(found, "harness plan replay=t.csv figure=f.svg")
    assert drawn == replay_figure(json.loads(json.dumps(found)), "harness plan replay=t.csv figure=f.svg")


def test_a_figure_is_of_a_replay(harness, tmp_path):
    done = harness("plan", "figure=f.svg", cwd=tmp_path)
    assert done.returncode == 2 and "add replay=TABLE" in done.stderr


def cell(run_id: str, tokens: int, trunk: str = "", trunk_tokens: int = 0) -> PlannedCell:
    return PlannedCell(
        run_id=run_id,
        model="m",
        params_non_embedding=1,
        params_total=1,
        tokens=tokens,
        steps=1,
        flops=float(tokens),
        lr=0.1,
        seed=0,
        config_hash="",
        trunk=trunk,
        trunk_tokens=trunk_tokens,
    )


def test_a_cell_of_a_trunk_costs_what_it_adds():
    cells = [cell("a", 100, "t", 70), cell("b", 200, "t", 140), cell("c", 100)]
    cost = marginal_cost(cells, [])
    assert cost(1, []) == 200 and cost(2, [0]) == 100
    assert cost(1, [0]) == pytest.approx(200 - 70)
    assert cost(0, [1]) == pytest.approx(100 - 70)  # the shorter one goes first, whichever was chosen first
    assert cost(0, [0]) == np.inf
    assert marginal_cost(cells, [cell("z", 50, "t", 35)])(0, []) == pytest.approx(100 - 35)
