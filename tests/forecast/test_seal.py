"""A seal that shows tampering, and a score that only the sealed run can have."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Target
from harness.forecast.gate import Verdict
from harness.forecast.predict import Forecast, predict
from harness.forecast.record import append_score, read_scores, summarise
from harness.forecast.score import score
from harness.forecast.seal import SealedForecast, open_seal, seal
from harness.runs import RunRecord

from ..public_data import planted_sweep

TARGET = Target(params=630_000, tokens=470_000_000, run_id="big", corpus_hash="c" * 64)
SEALED_AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def forecast() -> Forecast:
    return predict(planted_sweep(1, 0.005), TARGET, ForecastConfig(bootstraps=60))


@pytest.fixture
def sealed(tmp_path: Path, forecast: Forecast) -> SealedForecast:
    return seal(tmp_path / "forecast.json", forecast, SEALED_AT)


def run(**changes: object) -> RunRecord:
    values = {
        "run_id": "big", "group": "target", "status": "done", "params_total": 630_000,
        "params_non_embedding": 600_000, "params_embedding": 30_000, "params_head": 0,
        "tokens": 470_000_000, "unique_tokens": 470_000_000, "epochs": 1.0, "steps": 10, "flops": 1e15,
        "loss": 2.4, "loss_kind": "validation", "bits_per_byte": 1.2, "train_loss": 2.4, "lr": 0.01,
        "batch_tokens": 100, "schedule": "wsd", "optimizer": "adamw", "width": 8, "depth": 1, "n_heads": 1,
        "context": 16, "vocab_size": 32, "seed": 0, "data_seed": 0, "precision": "fp32",
        "attention": "sdpa", "compiled": False, "corpus_hash": "c" * 64, "tokenizer_hash": "t" * 64,
        "config_hash": "x", "code_version": "v",
    }  # fmt: skip
    return RunRecord(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_sealed_is_what_is_opened(sealed, forecast):
    again = open_seal(sealed.path)
    assert again == sealed
    assert again.loss == forecast.loss
    assert again.interval == forecast.interval
    assert again.sealed_at == SEALED_AT
    assert again.forecast["data_hash"] == forecast.fit.data_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"sealed_at": "2026-01-31', '"sealed_at": "2026-01-30'),
        ('"loss": 2.', '"loss": 3.'),
        ('"level": 0.9', '"level": NaN'),
    ],
)
def test_an_edit_is_seen(sealed, old, new):
    text = sealed.path.read_text()
    assert old in text
    sealed.path.write_text(text.replace(old, new, 1))
    with pytest.raises(WrongInput, match="was edited after it was sealed"):
        open_seal(sealed.path)


def test_a_file_that_is_no_seal(tmp_path):
    with pytest.raises(WrongInput, match="does not exist"):
        open_seal(tmp_path / "none.json")
    (tmp_path / "other.json").write_text(json.dumps({"loss": 2.0}))
    with pytest.raises(WrongInput, match="is not a sealed forecast"):
        open_seal(tmp_path / "other.json")
    (tmp_path / "torn.json").write_text('{"version": 1,')
    with pytest.raises(WrongInput, match="is damaged"):
        open_seal(tmp_path / "torn.json")


def test_a_seal_is_never_overwritten_and_a_refusal_never_sealed(sealed, forecast, tmp_path):
    with pytest.raises(WrongInput, match="already exists"):
        seal(sealed.path, forecast)
    refused = replace(forecast, verdict=Verdict.refused, reasons=("E ran to zero",))
    with pytest.raises(CannotAnswer, match="E ran to zero"):
        seal(tmp_path / "refused.json", refused)
    assert not (tmp_path / "refused.json").exists()


def test_a_score_says_what_came_true(sealed):
    found = score(sealed, run(loss=sealed.loss / 1.01), "2026-01-31T12:00:01+00:00")
    assert found.error == pytest.approx(0.01)
    assert found.inside
    assert found.started_after_seal is True
    assert not score(sealed, run(loss=sealed.interval[1] + 0.01)).inside
    assert score(sealed, run()).started_after_seal is None
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params_total": 700_000}, "not the sealed target: 700000 params"),
        ({"tokens": 460_000_000}, "tokens, sealed for 4.7e\\+08"),
        ({"run_id": "other"}, "its run_id is other"),
        ({"corpus_hash": "d" * 64}, "its corpus_hash is dddd"),
        ({"status": "diverged", "loss": None}, "is diverged, not done"),
        ({"loss": None}, "has no final loss"),
    ],
)
def test_another_or_unfinished_run_has_no_score(sealed, changes, message):
    with pytest.raises(CannotAnswer, match=message):
        score(sealed, run(**changes))


def test_a_run_that_began_before_the_seal_has_no_score(sealed):
    with pytest.raises(CannotAnswer, match="before the seal"):
        score(sealed, run(), "2026-01-31T12:59:00+01:00")
    with pytest.raises(WrongInput, match="has no zone"):
        score(sealed, run(), "2026-01-31T13:00:00")


def test_a_record_of_all_scores_counts_a_seal_once_and_tells_coverage_and_bias(tmp_path, sealed):
    record = tmp_path / "runs" / "scores.jsonl"
    assert summarise(read_scores(record))["scored"] == 0
    good = score(sealed, run(loss=sealed.loss / 1.01))
    for _ in range(2):
        append_score(record, good)
    append_score(record, replace(good, sha256="other", error=-0.03, inside=False))
    found = summarise(read_scores(record))
    assert (found["scored"], found["coverage"], found["too_high"]) == (2, 0.5, 1)
    assert found["bias"] == pytest.approx(-0.01) and found["error_median"] == pytest.approx(0.02)
    assert found["level"] == pytest.approx(0.9)
    with ThreadPoolExecutor(8) as pool:  # each opens the lock for itself, as processes do
        list(pool.map(lambda _: append_score(record, replace(good, sha256="third")), range(16)))
    assert len(read_scores(record)) == 3
    record.write_text(record.read_text() + "{torn")
    with pytest.raises(WrongInput, match="line 4: is damaged"):
        read_scores(record)
