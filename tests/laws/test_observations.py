"""What enters a fit, and what is dropped or refused on the way."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.filters import parse_filter
from harness.laws.observations import (
    Row,
    collect,
    levels,
    observations_from_records,
    summary,
)
from harness.laws.tables import BestOf, observations_from_table
from harness.runs import RunRecord, Skipped

from ..public_data import public_table

GOOD = {
    "run_id": "a",
    "group": "g",
    "params_total": "100",
    "tokens": "1000",
    "flops": "600000",
    "loss": "3.0",
}


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def record(**changes: object) -> RunRecord:
    values = {
        "run_id": "r",
        "group": "demo",
        "status": "done",
        "params_total": 120,
        "params_non_embedding": 100,
        "params_embedding": 20,
        "params_head": 0,
        "tokens": 1000,
        "unique_tokens": 1000,
        "epochs": 1.0,
        "steps": 10,
        "flops": 7.5e5,
        "loss": 3.0,
        "loss_kind": "validation",
        "bits_per_byte": 1.5,
        "train_loss": 3.1,
        "lr": 0.01,
        "batch_tokens": 100,
        "schedule": "wsd",
        "optimizer": "adamw",
        "width": 8,
        "depth": 1,
        "n_heads": 1,
        "context": 16,
        "vocab_size": 32,
        "seed": 0,
        "data_seed": 0,
        "precision": "fp32",
        "attention": "sdpa",
        "compiled": False,
        "corpus_hash": "c" * 64,
        "tokenizer_hash": "t" * 64,
        "config_hash": "x",
        "code_version": "v",
    }
    return RunRecord(**{**values, **changes})  # type: ignore[arg-type]


def test_bad_rows_are_dropped_with_their_reason(tmp_path):
    rows = [
        GOOD,
        {**GOOD, "run_id": "b", "loss": "nan"},
        {**GOOD, "run_id": "c", "loss": "-1"},
        {**GOOD, "run_id": "d", "params_total": ""},
        {**GOOD, "run_id": "a", "loss": "3.1"},
        {**GOOD, "run_id": "e"},
        {**GOOD, "run_id": "f", "tokens": "2000", "diverged": "1"},
        {**GOOD, "run_id": "g", "tokens": "3000", "status": "running"},
        {**GOOD, "run_id": "h", "tokens": "4000", "status": "done"},
    ]
    found = observations_from_table(write_csv(tmp_path / "t.csv", rows))
    assert found.run_ids == ("a", "h")
    assert Counter(item.reason for item in found.dropped) == {
        "loss is missing or not a number": 1,
        "loss is not positive": 1,
        "params is missing or not a number": 1,
        "duplicate": 2,
        "diverged": 1,
        "running": 1,
    }
    assert "2 duplicate" in summary(found.dropped)


def test_records_carry_hashes_conventions_and_earlier_skips():
    records = [record(), record(run_id="s", tokens=2000), record(run_id="d", status="diverged", loss=None)]
    found = observations_from_records(records, [Skipped("q", "running")], ParamsKind.non_embedding)
    assert found.params.tolist() == [100, 100]
    assert found.flops_kind == "exact"
    assert found.conventions["params"] == "non_embedding"
    assert {item.name: item.reason for item in found.dropped} == {"q": "running", "d": "diverged"}


def test_different_corpora_or_tokenizers_are_refused_by_name():
    with pytest.raises(CannotAnswer, match=r"different corpora .*bbbbbbbbbbbb, cccccccccccc"):
        observations_from_records([record(), record(run_id="s", tokens=2000, corpus_hash="b" * 64)], [])
    with pytest.raises(CannotAnswer, match="different tokenizers"):
        observations_from_records([record(), record(run_id="s", tokens=2000, tokenizer_hash="b" * 64)], [])


def test_nothing_left_says_what_became_of_the_rows():
    with pytest.raises(CannotAnswer, match="no usable run is left of 1: 1 diverged"):
        observations_from_records([record(status="diverged")], [])


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("group=rpj", 35),
        ("group!=rpj", 35),
        ("loss<3.5", 42),
        ("loss >= 3.5", 28),
        ("params_total=411616256", 20),
    ],
)
def test_filters_on_a_public_table(where, kept):
    path = public_table("gadre_overtrain.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    expected = {
        "group=rpj": lambda r: r["group"] == "rpj",
        "group!=rpj": lambda r: r["group"] != "rpj",
        "loss<3.5": lambda r: float(r["loss"]) < 3.5,
        "loss >= 3.5": lambda r: float(r["loss"]) >= 3.5,
        "params_total=411616256": lambda r: int(r["params_total"]) == 411616256,
    }[where]
    assert len(observations_from_table(path, [where])) == sum(map(expected, rows)) > 0


@pytest.mark.parametrize("text", ["loss", "loss<", "=3", "loss<three", "__import__('os')", ""])
def test_a_filter_that_cannot_be_read_is_wrong_input(text):
    with pytest.raises(WrongInput, match="where:"):
        parse_filter(text)


def test_best_of_cell_keeps_the_lowest_loss():
    table = public_table("careless_sweep.csv")
    found = observations_from_table(table, ["group=sweep"], best_of=BestOf.cell)
    assert len(found) == 15
    assert sum(item.reason == "not the best of its cell" for item in found.dropped) == 5
    kept = found.loss[(found.params == 381600) & (found.tokens == 798720)]
    assert kept.tolist() == [2.357367]


def test_jsonl_and_parquet_read_as_csv(tmp_path):
    rows = [GOOD, {**GOOD, "run_id": "b", "tokens": "2000", "loss": "2.5"}]
    jsonl = tmp_path / "t.jsonl"
    jsonl.write_text("".join(json.dumps({**r, "loss": float(r["loss"])}) + "\n" for r in rows))
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    hashes = {
        observations_from_table(path).data_hash()
        for path in (write_csv(tmp_path / "t.csv", rows), jsonl, tmp_path / "t.parquet")
    }
    assert len(hashes) == 1


def test_wrong_tables_get_one_line(tmp_path):
    good = write_csv(tmp_path / "t.csv", [GOOD])
    broken = tmp_path / "t.jsonl"
    broken.write_text("{not json\n")
    (tmp_path / "t.xlsx").write_text("")
    (tmp_path / "empty.csv").write_text("")
    mixed = write_csv(
        tmp_path / "m.csv",
        [{**GOOD, "loss_kind": "bits per byte"}, {**GOOD, "run_id": "b", "loss_kind": "nats"}],
    )
    cases = [
        (lambda: observations_from_table(tmp_path / "none.csv"), "does not exist"),
        (lambda: observations_from_table(tmp_path / "t.xlsx"), "unknown kind of table"),
        (lambda: observations_from_table(tmp_path / "empty.csv"), "holds no rows"),
        (lambda: observations_from_table(broken), "cannot be read"),
        (lambda: observations_from_table(good, ["lr=1"]), "no column 'lr'"),
        (lambda: observations_from_table(good, ["group=other"]), "no row of 1 passes"),
        (lambda: observations_from_table(good, params=ParamsKind.non_embedding), "params_non_embedding"),
        (lambda: observations_from_table(mixed), "mixes bits per byte"),
    ]
    for call, message in cases:
        with pytest.raises(WrongInput, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_rows_without_flops_turn_the_whole_table_to_6nd():
    rows = [
        Row(name="a", params=10, tokens=10, flops=700.0, loss=3.0),
        Row(name="b", params=10, tokens=20, flops=None, loss=2.9),
    ]
    found = collect(rows, ParamsKind.total, LossUnit.nats_per_token, "as given")
    assert found.flops.tolist() == [600.0, 1200.0]
    assert "approximation" in found.flops_kind


def test_levels_count_rounded_sizes_once():
    import numpy as np

    assert levels(np.array([100.0, 101.0, 200.0, 400.0, 401.0])) == 3
