"""The verbs of forecasting as typed: refusals that programs can read, and questions that are none."""

from __future__ import annotations

import json

from ..public_data import public_table


def test_rows_without_n_are_refused_in_json_and_in_one_line(harness, tmp_path):
    """A sharp break in the data-set size (Caballero et al. 2210.14891): smooth laws miss it."""
    table = public_table("bnsl_addition.csv")
    words = [f"runs={table}", "columns={flops: dataset_size}", "flops=1000", "format=json"]
    done = harness("forecast", *words, cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["verdict"] == "refused" and "loss" not in found
    assert found["reasons"][0] in done.stderr


def test_another_count_of_n_is_pointed_out_and_one_law_is_no_forecast(harness, tmp_path):
    done = harness("backtest", f"runs={public_table('steplaw_moe.csv')}", "best_of=cell", cwd=tmp_path)
    assert done.returncode == 2 and "add fit.params=non_embedding" in done.stderr
    done = harness("backtest", "runs=none.csv", "law=skaling", cwd=tmp_path)
    assert done.returncode == 2 and "weighs several laws" in done.stderr


def test_nothing_scored_has_no_record(harness, tmp_path):
    done = harness("score", "summary=true", cwd=tmp_path)
    assert done.returncode == 1 and "no forecast was scored yet in runs/scores.jsonl" in done.stderr
