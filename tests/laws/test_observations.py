"""What enters a fit, and what is dropped or refused on the way."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.collect import collect, summary
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.filters import parse_filter
from harness.laws.observations import Row, best_of_cell, levels
from harness.laws.tables import BestOf, observations_from_table, read_columns
from harness.runs import RunRecord, content_hash, write_json

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
        {**GOOD, "run_id": "c", "loss": "three"},
        {**GOOD, "run_id": "d", "params_total": ""},
        {**GOOD, "run_id": "z", "tokens": "0"},
        {**GOOD, "run_id": "a", "loss": "3.1"},
        {**GOOD, "run_id": "e"},
        {**GOOD, "run_id": "f", "tokens": "2000", "diverged": "1"},
        {**GOOD, "run_id": "g", "tokens": "3000", "status": "running"},
        {**GOOD, "run_id": "h", "tokens": "4000", "status": "done"},
    ]
    found = observations_from_table(write_csv(tmp_path / "t.csv", rows))
    assert found.run_ids == ("a", "h")
    assert Counter(item.reason for item in found.dropped) == {
        "loss is not finite": 1,
        "loss is not a number": 1,
        "params_total is missing": 1,
        "tokens is not positive": 1,
        "duplicate": 2,
        "diverged": 1,
        "running": 1,
    }
    assert "2 duplicate" in summary(found.dropped)


def write_record(root: Path, run: RunRecord) -> None:
    body = asdict(run)
    write_json(root / run.run_id / "record.json", {**body, "hash": content_hash(body)})


def test_run_directories_are_filtered_and_counted_as_a_table_is(tmp_path):
    kept = record(run_id="a", seed=3)
    for run in (
        kept,
        record(run_id="b", tokens=2000, lr=0.5),
        record(run_id="d", status="diverged", loss=None),
    ):
        write_record(tmp_path, run)
    found = observations_from_table(tmp_path, ["lr<0.1"], ParamsKind.non_embedding)
    assert (found.run_ids, found.seeds) == (("a",), ("3/0",))
    assert (found.params[0], found.tokens[0], found.flops[0], found.loss[0]) == (100, 1000, 7.5e5, 3.0)
    assert (found.flops_kind, found.conventions["params"]) == ("exact", "non_embedding")
    assert found.corpus_hashes == (kept.corpus_hash,)
    assert {item.name: item.reason for item in found.dropped} == {"d": "diverged", "b": "where lr<0.1"}


def test_run_directories_hold_bits_per_byte_and_unique_tokens(tmp_path):
    write_record(tmp_path, record(tokens=3000, unique_tokens=1000, epochs=3.0))
    found = observations_from_table(tmp_path, columns={"loss": "bits_per_byte"})
    assert (found.loss.tolist(), found.loss_unit) == ([1.5], LossUnit.bits_per_byte)
    assert found.unique_tokens is not None
    assert (found.unique_tokens.tolist(), found.epochs.tolist()) == ([1000], [3])


@pytest.mark.parametrize("column", ["corpus_hash", "tokenizer_hash", "loss_kind"])
def test_runs_that_cannot_share_a_law_are_refused_with_the_filter_to_use(tmp_path, column):
    write_record(tmp_path, record(run_id="a"))
    write_record(tmp_path, record(run_id="b", tokens=2000, **{column: "b" * 64}))
    with pytest.raises(CannotAnswer, match=f"different {column} cannot share a law") as caught:
        observations_from_table(tmp_path)
    advised = str(caught.value).split('where=["')[1].split('"]')[0]
    assert len(observations_from_table(tmp_path, [advised])) == 1


def test_nothing_left_says_what_became_of_the_rows(tmp_path):
    write_record(tmp_path, record(status="diverged", loss=None))
    with pytest.raises(CannotAnswer, match=r"no run in .* is finished: 1 diverged"):
        observations_from_table(tmp_path)
    table = write_csv(tmp_path / "t.csv", [{**GOOD, "loss": ""}])
    with pytest.raises(CannotAnswer, match="no usable run is left of 1: 1 loss is missing"):
        observations_from_table(table)


@pytest.mark.parametrize("loss", ["0", "-1.5"])
def test_a_loss_that_is_not_positive_is_refused_rather_than_dropped(tmp_path, loss):
    rows = [GOOD, {**GOOD, "run_id": "b", "tokens": "2000", "loss": loss}]
    table = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(WrongInput, match=r"1 of 2 rows have a loss that is not positive, the first b"):
        observations_from_table(table)
    assert len(observations_from_table(table, ["loss>0"])) == 1


def test_a_filter_counts_what_it_alone_removed(tmp_path):
    rows = [{**GOOD, "run_id": str(at), "tokens": str(1000 + at), "loss": str(at)} for at in range(1, 10)]
    found = observations_from_table(write_csv(tmp_path / "t.csv", rows), ["loss>2", "loss<5", "group=g"])
    assert found.run_ids == ("3", "4")
    assert Counter(item.reason for item in found.dropped) == {"where loss>2": 2, "where loss<5": 5}


def test_a_loss_curve_counts_once_at_its_end(tmp_path):
    curve = [{**GOOD, "step": str(step), "loss": str(9 - step)} for step in (1, 3, 2)]
    other = [{**GOOD, "run_id": "b", "tokens": tokens, "loss": "2"} for tokens in ("10", "30", "20")]
    broken = [
        {**GOOD, "run_id": "c", "tokens": tokens, "loss": loss} for tokens, loss in (("1", "2"), ("2", "nan"))
    ]
    found = observations_from_table(write_csv(tmp_path / "t.csv", [*curve, *other, *broken]))
    assert dict(zip(found.run_ids, zip(found.tokens, found.loss, strict=True), strict=True)) == {
        "b": (30, 2),
        "a": (1000, 6),
    }
    assert summary(found.dropped) == "5 earlier point of the same run, 1 loss is not finite"


def test_the_same_name_in_two_groups_is_two_runs(tmp_path):
    rows = [GOOD, {**GOOD, "group": "h"}]
    assert len(observations_from_table(write_csv(tmp_path / "t.csv", rows))) == 2


def test_unique_tokens_come_from_their_column_or_from_epochs_and_for_all_rows_or_none(tmp_path):
    rows = [
        {**GOOD, "unique_tokens": "500", "epochs": ""},
        {**GOOD, "run_id": "b", "tokens": "2000", "unique_tokens": "", "epochs": "4"},
    ]
    found = observations_from_table(write_csv(tmp_path / "t.csv", rows))
    assert found.unique_tokens is not None and found.unique_tokens.tolist() == [500, 500]
    assert found.subset([False, True]).unique_tokens.tolist() == [500]
    bare = observations_from_table(
        write_csv(tmp_path / "t.csv", [*rows, {**GOOD, "run_id": "c", "loss": "2"}])
    )
    assert bare.unique_tokens is None and bare.epochs is None
    assert bare.conventions["unique_tokens"] == "unknown"


def test_the_public_repeated_runs_keep_their_unique_tokens():
    found = observations_from_table(public_table("datablations.csv"), ["in_fit_182=1", "group=c4"])
    assert found.unique_tokens is not None
    assert found.epochs.max() > 40 and (found.unique_tokens <= found.tokens * 1.001).all()


OWN = {"N": "100", "D": "1000", "final loss": "3.0"}


def test_columns_of_other_names_are_mapped(tmp_path):
    table = write_csv(tmp_path / "t.csv", [OWN])
    columns = {"params_total": "N", "tokens": "D", "loss": "final loss"}
    found = observations_from_table(table, ["N=100", "loss<4"], columns=columns)
    assert (found.params[0], found.tokens[0], found.loss[0]) == (100, 1000, 3.0)
    public = public_table("gadre_overtrain.csv")
    other = observations_from_table(public, ["group=rpj"], columns={"loss": "loss_openlm"})
    assert not np.array_equal(other.loss, observations_from_table(public, ["group=rpj"]).loss)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"loss": "final_loss"}, r"columns={loss: final_loss}: .*perhaps 'final loss'; there are N, D"),
        ({"los": "D"}, "'los' is no standard name, perhaps 'loss'"),
        ({"loss": "D", "tokens": "D"}, "'D' cannot be both loss and tokens"),
        (
            {"tokens": "D", "loss": "final loss"},
            "'N' does not say which parameters.*columns={params_total: N}",
        ),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(tmp_path, columns, message):
    with pytest.raises(WrongInput, match=message):
        observations_from_table(write_csv(tmp_path / "t.csv", [OWN]), columns=columns)


def test_columns_of_other_laws(tmp_path):
    rows = [
        {"run_id": "a", "score": "0.5", "k": "1"},
        {"run_id": "a", "score": "0.6", "k": "2"},
        {"run_id": "a", "score": "0.6", "k": "2"},
        {"run_id": "b", "score": "", "k": "1"},
        {"run_id": "c", "score": "0.9", "k": "8"},
    ]
    found = read_columns(
        write_csv(tmp_path / "t.csv", rows), ["accuracy", "k"], ["k<5"], {"accuracy": "score"}
    )
    assert found.labels == ("a", "a")
    assert {name: values.tolist() for name, values in found.values.items()} == {
        "accuracy": [0.5, 0.6],
        "k": [1, 2],
    }
    assert summary(found.dropped) == "1 accuracy is missing, 1 duplicate, 1 where k<5"


@pytest.mark.parametrize("cell", ["1.3B", "20M tokens", "1,300,000", "7e9 params", "64 k"])
def test_a_labelled_number_is_not_guessed_at(tmp_path, cell):
    table = write_csv(tmp_path / "t.csv", [GOOD, {**GOOD, "run_id": "b", "tokens": cell}])
    with pytest.raises(WrongInput, match=f"tokens is '{cell}' at b; write the plain number"):
        observations_from_table(table)


@pytest.mark.parametrize(
    ("status", "kept"), [("Finished", 1), ("SUCCESS", 1), ("complete", 1), ("crashed", 0)]
)
def test_how_other_tools_say_that_a_run_is_finished(tmp_path, status, kept):
    rows = [GOOD, {**GOOD, "run_id": "b", "tokens": "2000", "status": status}]
    assert len(observations_from_table(write_csv(tmp_path / "t.csv", rows))) == 1 + kept


@pytest.mark.parametrize("cell", ["3,14", "0,1234", "1,5e9", ",5"])
def test_a_decimal_comma_is_refused_rather_than_dropped(tmp_path, cell):
    table = write_csv(tmp_path / "t.csv", [GOOD, {**GOOD, "run_id": "b", "loss": cell}])
    with pytest.raises(WrongInput, match=f"loss is '{cell}' at b; write decimals with a point"):
        observations_from_table(table)


@pytest.mark.parametrize(
    ("column", "kind", "said"),
    [
        ("perplexity", "", "logarithm of the perplexity"),
        ("val/ppl", "", "logarithm of the perplexity"),
        ("loss_bits", "", "times ln 2"),
        ("loss", "bits per token", "times ln 2"),
    ],
)
def test_a_loss_that_is_named_after_another_unit_is_refused(tmp_path, column, kind, said):
    row = {**{k: v for k, v in GOOD.items() if k != "loss"}, column: "3.5", "loss_kind": kind}
    with pytest.raises(WrongInput, match=said):
        observations_from_table(write_csv(tmp_path / "t.csv", [row]), columns={"loss": column})


@pytest.mark.parametrize("column", ["log_perplexity", "eval/log-ppl", "orbits", "supple_loss"])
def test_a_name_that_only_holds_such_a_word_is_a_loss(tmp_path, column):
    row = {**{k: v for k, v in GOOD.items() if k != "loss"}, column: "3.5"}
    found = observations_from_table(write_csv(tmp_path / "t.csv", [row]), columns={"loss": column})
    assert found.loss_unit is LossUnit.nats_per_token


def test_logarithms_of_flops_are_refused_and_other_units_are_not(tmp_path):
    sizes = [(1e7, 1e9), (1e8, 2e9), (1e9, 1e11)]
    rows = [{**GOOD, "run_id": f"r{n}", "params_total": str(n), "tokens": str(d)} for n, d in sizes]
    logs = [{**r, "flops": str(np.log10(6 * n * d) + 0.2)} for r, (n, d) in zip(rows, sizes, strict=True)]
    with pytest.raises(WrongInput, match=r"flops is 16\.9782 at .*, where 6ND is 1e16.8; write FLOPs"):
        observations_from_table(write_csv(tmp_path / "t.csv", logs))
    exa = [{**r, "flops": str(6e-18 * n * d)} for r, (n, d) in zip(rows, sizes, strict=True)]
    assert len(observations_from_table(write_csv(tmp_path / "t.csv", exa))) == 3


def test_a_table_without_tokens_says_how_to_write_them(tmp_path):
    row = {k: v for k, v in GOOD.items() if k != "tokens"}
    with pytest.raises(WrongInput, match="else write one: steps x batch"):
        observations_from_table(write_csv(tmp_path / "t.csv", [row]))
    with pytest.raises(WrongInput, match="no column 'loss', perhaps 'LOSS'"):
        observations_from_table(write_csv(tmp_path / "t.csv", [{k.upper(): v for k, v in GOOD.items()}]))


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


def test_batches_that_round_the_tokens_apart_leave_one_cell(tmp_path):
    """Whole steps of 512 and of 320 tokens towards 100,000: 99,840 and 100,160, one length of training."""
    lengths = {"a": 99840, "b": 100160, "c": 200192}
    losses = {"a": 2.5, "b": 2.4, "c": 2.2}
    rows = [
        {**GOOD, "run_id": name, "tokens": str(d), "loss": str(losses[name])} for name, d in lengths.items()
    ]
    found = observations_from_table(write_csv(tmp_path / "t.csv", rows), best_of=BestOf.cell)
    assert found.run_ids == ("b", "c")
    assert found.subset([True, False]).trials.run_ids == ("a", "b")


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
    cases = [
        (lambda: observations_from_table(tmp_path / "none.csv"), "does not exist"),
        (lambda: observations_from_table(tmp_path / "t.xlsx"), "is no table of runs"),
        (lambda: observations_from_table(tmp_path / "empty.csv"), "holds no rows"),
        (lambda: observations_from_table(broken), "cannot be read"),
        (lambda: observations_from_table(good, ["lr=1"]), "no column 'lr'"),
        (lambda: observations_from_table(good, ["group=other"]), "no row of 1 passes"),
        (lambda: observations_from_table(good, params=ParamsKind.non_embedding), "params_non_embedding"),
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
    assert levels(np.array([100.0, 101.0, 200.0, 400.0, 401.0])) == 3


def test_a_law_of_compute_asks_for_flops_and_a_loss(tmp_path):
    """Where not every row has N and D, none is read: a row does not enter by what another one has."""
    bare = {"run_id": "a", "flops": "1e18", "loss": "3.0"}
    rows = [
        {**bare, "run_id": "c", "flops": "4e18", "loss": "2.5", "params_total": "100"},
        bare,
        {**bare, "run_id": "b", "flops": "2e18"},
        {**bare, "run_id": "d", "flops": ""},
        {**bare, "flops": "5e17", "loss": "3.5"},
        {**bare, "run_id": "e"},
    ]
    found = observations_from_table(write_csv(tmp_path / "t.csv", rows), of_compute=True)
    assert found.run_ids == ("a", "b", "c")
    assert found.flops.tolist() == [1e18, 2e18, 4e18]
    assert not found.sized
    assert found.columns["params"] is found.columns["tokens"] is None
    assert (found.conventions["params"], found.conventions["tokens"]) == ("unknown", "unknown")
    assert Counter(item.reason for item in found.dropped) == {
        "flops is missing": 1,
        "earlier point of the same run": 1,
        "duplicate": 1,
    }
    again = observations_from_table(write_csv(tmp_path / "u.csv", rows[::-1]), of_compute=True)
    assert again.data_hash() == found.data_hash()
    with pytest.raises(WrongInput, match="best_of=cell needs"):
        best_of_cell(found)


def test_a_law_of_compute_reads_sizes_where_all_rows_have_them(tmp_path):
    table = write_csv(tmp_path / "t.csv", [GOOD, {**GOOD, "run_id": "b", "tokens": "2000", "flops": ""}])
    found = observations_from_table(table, of_compute=True)
    assert found.sized
    assert found.data_hash() == observations_from_table(table).data_hash()
    assert found.flops.tolist() == [6e5, 1.2e6]


def test_a_law_of_compute_without_flops_says_how_to_name_them(tmp_path):
    table = write_csv(tmp_path / "t.csv", [{"run_id": "a", "examples": "160", "loss": "3.0"}])
    with pytest.raises(WrongInput, match=r"flops is empty on all 1 rows.*add columns=\{flops: ITS_NAME\}"):
        observations_from_table(table, of_compute=True)
    found = observations_from_table(table, columns={"flops": "examples"}, of_compute=True)
    assert found.flops.tolist() == [160]
