"""What the gate is told of learning rates and batches that were tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.forecast.tuning import check_repeats, check_tuning
from harness.laws.checks import Grade
from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_6ND, Observations, Row, best_of_cell

RATES = 1e-3 * 2.0 ** np.arange(-2, 2.5, 0.5)
CURVATURE = 0.02


def sweep(optimum_of_largest: float, batches: tuple[float, ...] = (512.0,)) -> Observations:
    """Three sizes, each at nine rates around 1e-3; the largest has its optimum elsewhere."""
    rows = []
    for size, optimum in ((1e5, 1e-3), (2e5, 1e-3), (4e5, optimum_of_largest)):
        for lr in RATES:
            for batch in batches:
                loss = 3 * np.exp(CURVATURE * np.log(lr / optimum) ** 2 + 0.01 * np.log(batch / 512) ** 2)
                name = f"{size}-{lr}-{batch}"
                row = Row(name=name, params=size, tokens=1e6, flops=None, loss=float(loss))
                rows.append(replace(row, lr=float(lr), batch_tokens=batch))
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)


def test_tuned_rungs_pass():
    (check,) = check_tuning(sweep(1e-3))
    assert (check.name, check.grade, check.value) == ("lr at an edge", Grade.ok, 0.0)


def test_a_rung_at_its_edge_is_named_with_its_cost():
    """The largest size would like twice the largest rate: it pays the square of that doubling."""
    (check,) = check_tuning(sweep(8e-3))
    cost = CURVATURE * np.log(2) ** 2
    assert check.grade is Grade.weak
    assert check.value is not None and abs(check.value - cost) < 1e-9
    assert "learning rate lies at an end of the grid on 1 of 3 rungs" in check.reason
    assert "4e+05 x 1e+06 (the largest)" in check.reason
    assert f"about {cost:.2%}" in check.reason


def test_the_choice_of_the_best_does_not_hide_the_edge():
    chosen = best_of_cell(sweep(8e-3))
    assert len(chosen) == 3
    assert check_tuning(chosen)[0].grade is Grade.weak
    assert check_tuning(chosen.subset([True, True, True]))[0].grade is Grade.weak
    assert check_tuning(chosen.subset([True, True, False]))[0].grade is Grade.ok


def test_the_batch_has_a_check_of_its_own():
    rate, batch = check_tuning(sweep(1e-3, (128.0, 256.0, 512.0)))
    assert rate.grade is Grade.ok
    assert batch.grade is Grade.weak and "best batch lies at an end" in batch.reason


def test_a_table_of_single_settings_says_nothing():
    whole = sweep(8e-3)
    assert check_tuning(whole.subset(np.arange(len(whole)) % 9 == 0)) == []
    assert check_tuning(replace(whole, lr=None)) == []


@pytest.mark.parametrize(("apart", "found"), [(0.01, Grade.ok), (0.03, Grade.weak), (0.1, Grade.failed)])
def test_runs_of_one_cell_that_seeds_do_not_explain(apart, found):
    rows = [
        Row(
            name=f"{size}-{mix}",
            params=size,
            tokens=1e6,
            flops=None,
            loss=3 * np.exp(apart * mix),
            group=str(mix),
        )
        for size in (1e5, 2e5, 4e5)
        for mix in (0, 1)
    ]
    table = collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)
    (check,) = check_repeats(table)
    assert check.grade is found and f"{apart:.1%} apart" in check.reason and "best_of=cell" in check.reason
    assert check_repeats(best_of_cell(table)) == []


def test_runs_that_repeat_their_data_are_another_cell():
    rows = [
        Row(name=f"{unique}", params=1e5, tokens=1e6, flops=None, loss=3 + 1e5 / unique, unique_tokens=unique)
        for unique in (2e5, 1e6)
    ]
    assert check_repeats(collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)) == []
