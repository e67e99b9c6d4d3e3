"""What came true of a sealed forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from harness.errors import CannotAnswer
from harness.forecast.seal import SealedForecast, parse_time
from harness.runs import RunRecord

SAME_COUNT = 1e-3
"""Relative difference in params or tokens that still is the same run: tokens are rounded to whole steps."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """`error` is (predicted - actual) / actual. Losses are in the unit of the forecast."""

    run_id: str
    predicted: float
    interval: tuple[float, float]
    level: float
    actual: float
    error: float
    inside: bool
    started_after_seal: bool | None
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "interval": list(self.interval)}


def score(sealed: SealedForecast, record: RunRecord, run_started_at: str | None = None) -> Score:
    """Compare a sealed forecast with the run it was made for.

    `run_started_at` is an ISO 8601 time with a zone; without it `started_after_seal` is None.
    Raises CannotAnswer when the run is unfinished, is another run, or started before the seal.
    """
    actual = actual_loss(sealed, record)
    refuse_other_run(sealed, record)
    after = starts_after(sealed, record, run_started_at)
    low, high = sealed.interval
    return Score(
        run_id=record.run_id,
        predicted=sealed.loss,
        interval=sealed.interval,
        level=float(sealed.forecast["level"]),
        actual=actual,
        error=sealed.loss / actual - 1,
        inside=low <= actual <= high,
        started_after_seal=after,
        sha256=sealed.sha256,
    )


def actual_loss(sealed: SealedForecast, record: RunRecord) -> float:
    """The run's final loss in the forecast's unit."""
    if record.status != "done":
        raise CannotAnswer(f"run {record.run_id} is {record.status}, not done; finish it, then score")
    bits = sealed.forecast["conventions"]["loss"] == "bits/byte"
    loss = record.bits_per_byte if bits else record.loss
    if loss is None or not (math.isfinite(loss) and loss > 0):
        raise CannotAnswer(f"run {record.run_id} has no final loss to compare with")
    return loss


def refuse_other_run(sealed: SealedForecast, record: RunRecord) -> None:
    """Raises CannotAnswer naming the first thing in which the run is not the sealed target."""
    target = sealed.target
    params = getattr(record, f"params_{sealed.forecast['conventions']['params']}")
    for label, wanted, found in (
        ("params", target["params"], params),
        ("tokens", target["tokens"], record.tokens),
    ):
        if abs(found / wanted - 1) > SAME_COUNT:
            raise CannotAnswer(
                f"run {record.run_id} is not the sealed target: {found:.6g} {label}, sealed for {wanted:.6g}"
            )
    for label in ("run_id", "corpus_hash", "tokenizer_hash"):
        wanted, found = target[label], getattr(record, label)
        if wanted and wanted != found:
            raise CannotAnswer(
                f"run {record.run_id} is not the sealed target: "
                f"its {label} is {found[:40]}, sealed for {wanted[:40]}"
            )


def starts_after(sealed: SealedForecast, record: RunRecord, run_started_at: str | None) -> bool | None:
    """Raises CannotAnswer when the run had begun before the forecast was sealed."""
    if run_started_at is None:
        return None
    started = parse_time(run_started_at, sealed.path)
    # The seal is written to the second.
    if started.replace(microsecond=0) < sealed.sealed_at:
        raise CannotAnswer(
            f"run {record.run_id} started at {run_started_at}, before the seal of "
            f"{sealed.sealed_at.isoformat()}; that is no forecast"
        )
    return True
