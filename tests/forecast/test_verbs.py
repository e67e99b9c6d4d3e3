"""The verbs of forecasting as typed: refusals that programs can read, and questions that are none."""

from __future__ import annotations

import json

from ..public_data import planted_sweep, public_table


def test_rows_without_n_are_refused_in_json_and_in_one_line(harness, tmp_path):
    """A sharp break in the data-set size (Caballero et al. 2210.14891): smooth laws miss it."""
    table = public_table("bnsl_addition.csv")
    words = [f"runs={table}", "columns={flops: dataset_size}", "flops=1000", "format=json"]
    done = harness("forecast", *words, cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["verdict"] == "refused" and "loss" not in found
    assert found["reasons"][0] in done.stderr


def test_a_backtest_of_rows_without_n_has_the_fields_of_any_other(harness, tmp_path):
    done = harness("backtest", f"runs={public_table('bnsl_addition.csv')}", "format=json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found["verdict"] == "refused"
    assert (found["cases"], found["ensemble"], found["weights"], found["baseline"]) == ([], None, {}, None)


def test_a_sealed_bet_says_its_cost_and_what_was_left_out(harness, tmp_path):
    sweep = planted_sweep(1, 0.002, sizes=6)
    rows = zip(sweep.params, sweep.tokens, sweep.loss, strict=True)
    lines = ["params_total,tokens,loss", *(f"{n},{d},{loss}" for n, d, loss in rows), "1e5,1e7,nan"]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    words = ["runs=runs.csv", "params=4e5", "tokens=3e8", "seal=bet.json"]
    words += ["forecast.bootstraps=50", "hardware=h100", "cost.mfu=0.4", "cost.price_per_device_hour=2"]
    harness("forecast", *words, "format=json", cwd=tmp_path)
    again = json.loads(harness("forecast", *words, "format=json", cwd=tmp_path).stdout)
    cost, regret = again["cost"]["money"], again["regret"]
    assert cost > 0 and regret["money"] == regret["compute_share"] * cost
    said = harness("forecast", *words, cwd=tmp_path).stdout
    assert "dropped 1: loss is not finite" in said and "device-hours" in said


def test_another_count_of_n_is_pointed_out_and_one_law_is_no_forecast(harness, tmp_path):
    done = harness("backtest", f"runs={public_table('steplaw_moe.csv')}", "best_of=cell", cwd=tmp_path)
    assert done.returncode == 2 and "add fit.params=non_embedding" in done.stderr
    done = harness("backtest", "runs=none.csv", "law=skaling", cwd=tmp_path)
    assert done.returncode == 2 and "weighs several laws" in done.stderr


def test_nothing_scored_has_no_record(harness, tmp_path):
    done = harness("score", "summary=true", cwd=tmp_path)
    assert done.returncode == 1 and "no forecast was scored yet in runs/scores.jsonl" in done.stderr
