"""The three approaches side by side: they agree where they should and say which cannot answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from harness.laws.approaches.compare import Answer, compare, comparison_budgets, unanswered
from harness.laws.config import FitConfig
from harness.laws.fit import FitStatus, fit_law
from harness.laws.intervals import fit_json
from harness.laws.observations import Observations

from ...public_data import planted_sweep, public_table
from .designs import EPOCH, isoflop_design, optimal_tokens


def approaches(rows: Observations, targets: tuple[float, ...] = (), bootstraps: int = 150) -> list[Answer]:
    config = FitConfig(bootstraps=bootstraps)
    budgets = comparison_budgets(rows, targets)
    law = fit_json(rows, fit_law(rows, config.law), config, budgets)
    return list(compare(rows, law, config, budgets))


@pytest.fixture(scope="module")
def three() -> list[Answer]:
    return approaches(isoflop_design(EPOCH, 6, 9, noise=0.002), (5.76e23,))


def test_all_three_hold_the_planted_allocation(three):
    truth = EPOCH[4] / (EPOCH[3] + EPOCH[4])
    for answer in three:
        assert answer.status is FitStatus.identified, answer.reasons
        low, high = answer.interval
        assert low < truth < high
        assert low < answer.exponent_a < high
        for optimum in answer.optimum:
            low, high = optimum["interval"]["tokens"]
            assert low < optimal_tokens(EPOCH, optimum["flops"]) < high
            assert optimum["tokens_per_param"] == pytest.approx(optimum["tokens"] / optimum["params"])


def test_budgets_are_multiples_of_the_largest_run_and_the_targets(three):
    for answer in three:
        assert [o["flops"] for o in answer.optimum] == pytest.approx([1e21, 1e22, 1e23, 5.76e23])


def test_the_json_has_the_promised_keys_and_states_the_bias(three):
    text = json.dumps([answer.to_json() for answer in three], allow_nan=False)
    first, second, third = json.loads(text)
    keys = {"approach", "name", "status", "reasons", "exponent_a", "interval", "optimum", "details"}
    assert [set(item) for item in (first, second, third)] == [keys] * 3
    assert [item["approach"] for item in (first, second, third)] == [1, 2, 3]
    details = second["details"]
    assert details["raw_exponent_a"] != second["exponent_a"]
    assert 0 < details["bias_bound"] < 0.05
    for entry in details["slices"]:
        assert entry["tokens_raw"] / entry["tokens"] - 1 == pytest.approx(entry["bias"])
    assert unanswered(three) == ""


def test_without_bootstraps_there_are_numbers_and_no_intervals():
    for answer in approaches(isoflop_design(EPOCH, 6, 9, noise=0.002), bootstraps=0):
        assert answer.interval is None
        assert answer.optimum[0]["interval"] is None
        assert answer.exponent_a == pytest.approx(0.513, abs=0.1)


def test_one_budget_answers_by_none():
    found = approaches(isoflop_design(EPOCH, points=25, budgets=[1e18], noise=0.003))
    assert [a.status for a in found] == [FitStatus.not_identified] * 3
    line = unanswered(found)
    for words in ("approach 1 (envelope)", "approach 2 (isoflop)", "approach 3 (parametric)", "one budget"):
        assert words in line
    json.dumps([answer.to_json() for answer in found], allow_nan=False)


def test_a_grid_of_sizes_and_tokens_has_an_envelope_and_a_law():
    found = approaches(planted_sweep(0, 0.001, sizes=8, horizons=8))
    assert [bool(a.reasons) for a in found] == [False, True, False]
    assert "isoFLOP slices" in unanswered(found)
    assert found[1].optimum == () and found[1].exponent_a is None


def test_a_law_of_compute_alone_allocates_nothing():
    from harness.laws.fit import fit_observed
    from harness.laws.forms.catalogue import FORMS
    from harness.laws.intervals import fit_json

    rows, config = isoflop_design(EPOCH, 6, 9), FitConfig(bootstraps=20)
    law = fit_json(rows, fit_observed(rows, FORMS["frontier"], config.law), config)
    third = compare(rows, law, config, [1e22])[2]
    assert third.reasons[-1] == "frontier allocates no budget"


def write_table(path: Path, rows: Observations) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("params_total", "tokens", "loss"))
        writer.writerows(zip(rows.params, rows.tokens, rows.loss, strict=True))


def test_the_chinchilla_runs_as_a_table(harness, tmp_path):
    table = public_table("chinchilla_epoch.csv")
    words = ("approaches=true", "flops=[5.76e23]", "fit.bootstraps=100")
    done = harness("fit", f"runs={table}", 'where=["excluded_by_epoch=0"]', *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("three approaches, 90% intervals", "1 envelope", "2 isoflop", "3 parametric", "taken off"):
        assert text in done.stdout
    assert done.stdout.count("5.76e+23") == 4  # the law's own table, and one line an approach


def test_a_table_without_slices_prints_the_others_and_names_the_one(harness, tmp_path):
    write_table(tmp_path / "t.csv", planted_sweep(0, 0.001, sizes=8, horizons=8))
    words = ("runs=t.csv", "approaches=true", "fit.bootstraps=50", "format=json")
    done = harness("fit", *words, cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)["approaches"]
    assert [item["status"] for item in found] == ["identified", "not_identified", "identified"]
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and "approach 2 (isoflop) cannot answer" in lines[0]
