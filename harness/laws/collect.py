"""From candidate rows to observations: what cannot be used is dropped visibly, the rest put in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_6ND, Observations, Row
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats
from harness.runs import Skipped

DIVERGED = "diverged"

LOG_OFF = 1.5
"""How far 6ND may lie from the FLOPs of a run, in powers of ten; no FLOPs are so near their own logarithm."""


def collect(
    rows: Sequence[Row],
    params: ParamsKind,
    loss_unit: LossUnit,
    flops_kind: str,
    skipped: Sequence[Skipped] = (),
) -> Observations:
    """Drop what cannot be used, visibly, and put the rest in order.

    Raises WrongInput on a loss that is not positive, which no cross-entropy is: the column holds something
    else; and on FLOPs that are logarithms. Raises CannotAnswer when nothing is left, or when corpora or
    tokenizers differ.
    """
    ends, earlier = last_points(rows)
    faults = [row.fault or unusable(row) for row in ends]
    usable = [row for row, fault in zip(ends, faults, strict=True) if not fault]
    refuse_not_positive(usable)
    refuse_logarithms(usable)
    kept, repeated = without_duplicates(usable)
    unfit = [Skipped(row.name, fault) for row, fault in zip(ends, faults, strict=True) if fault]
    dropped = (*skipped, *earlier, *unfit, *repeated)
    if not kept:
        raise CannotAnswer(
            f"no usable run is left of {len(rows)}: {summary(dropped) or 'the filter kept none'}"
        )
    refuse_mixture("corpora", "corpus hashes", {row.corpus_hash for row in kept})
    refuse_mixture("tokenizers", "tokenizer hashes", {row.tokenizer_hash for row in kept})
    if any(row.flops is None for row in kept):
        flops_kind = FLOPS_6ND
    return Observations(
        params=np.array([row.params for row in kept], dtype=float),
        tokens=np.array([row.tokens for row in kept], dtype=float),
        flops=np.array([flops_of(row, flops_kind) for row in kept], dtype=float),
        loss=np.array([row.loss for row in kept], dtype=float),
        run_ids=tuple(row.name for row in kept),
        groups=tuple(row.group for row in kept),
        seeds=tuple(row.seed for row in kept),
        corpus_hashes=tuple(row.corpus_hash for row in kept),
        tokenizer_hashes=tuple(row.tokenizer_hash for row in kept),
        params_kind=params,
        loss_unit=loss_unit,
        flops_kind=flops_kind,
        unique_tokens=column_of([row.unique_tokens for row in kept]),
        weights=unequal([row.weight for row in kept]),
        clusters=clusters_of(kept),
        dropped=dropped,
        lr=column_of([row.lr for row in kept]),
        batch_tokens=column_of([row.batch_tokens for row in kept]),
        diverged=tuple(row for row, fault in zip(ends, faults, strict=True) if fault == DIVERGED),
    )


def last_points(rows: Sequence[Row]) -> tuple[list[Row], list[Skipped]]:
    """Where every run ends: the row with the most tokens, then steps, of those of one group and name.

    A loss curve so counts once, and a run whose last point is faulty is not taken for a shorter one that
    finished. Rows at the same point are left for `without_duplicates`.
    """
    ends: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        key = (row.group, row.name)
        ends[key] = max(ends.get(key, point_of(row)), point_of(row))
    kept = [not row.name or point_of(row) == ends[row.group, row.name] for row in rows]
    earlier = [row for row, keep in zip(rows, kept, strict=True) if not keep]
    return (
        [row for row, keep in zip(rows, kept, strict=True) if keep],
        [Skipped(row.name, "earlier point of the same run") for row in earlier],
    )


def point_of(row: Row) -> tuple[float, float]:
    length = row.place[1]
    return (length if math.isfinite(length) else -1.0, row.step if math.isfinite(row.step) else -1.0)


def without_duplicates(rows: Sequence[Row]) -> tuple[list[Row], list[Skipped]]:
    """The rows in canonical order; of those with one name, or with equal numbers and seed, the first."""
    kept: list[Row] = []
    dropped: list[Skipped] = []
    seen: set[tuple[Any, ...]] = set()
    for row in sorted(rows, key=lambda r: (*r.place, r.loss, r.name)):
        named = {(row.group, row.name)} if row.name else set()
        keys = {*named, (row.group, *row.place, row.loss, row.seed, row.lr, row.batch_tokens)}
        if keys & seen:
            dropped.append(Skipped(row.name, "duplicate"))
        else:
            kept.append(row)
        seen |= keys
    return kept, dropped


def refuse_not_positive(rows: Sequence[Row]) -> None:
    """Raises WrongInput when a loss is zero or negative."""
    bad = [row for row in rows if row.loss <= 0]
    if bad:
        raise WrongInput(
            f"{len(bad)} of {len(rows)} rows have a loss that is not positive, the first {bad[0].name} with "
            f'{bad[0].loss:g}; correct the column, or leave them out with where=["loss>0"]'
        )


def refuse_logarithms(rows: Sequence[Row]) -> None:
    """Raises WrongInput when the FLOPs of every row lie near the decimal logarithm of its 6ND."""
    given = [(row, row.flops) for row in rows if row.sized and row.flops is not None]
    logs = [math.log10(FLOPS_PER_PARAM_TOKEN * row.params * row.tokens) for row, _ in given]
    if given and all(abs(flops - log) < LOG_OFF for (_, flops), log in zip(given, logs, strict=True)):
        row, flops = given[0]
        raise WrongInput(
            f"flops is {flops:g} at {row.name}, where 6ND is 1e{logs[0]:.3g}; "
            "write FLOPs, not their logarithm"
        )


def column_of(values: Sequence[float | None]) -> Floats | None:
    """The values as an array; None unless all are known."""
    known = [value for value in values if value is not None]
    return np.array(known, dtype=float) if len(known) == len(values) else None


def unequal(weights: Sequence[float]) -> Floats | None:
    """The weights as an array; None when all are equal."""
    return np.array(weights, dtype=float) if len(set(weights)) > 1 else None


def clusters_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Which run, or trunk, each row belongs to; empty when no row says so."""
    if not any(row.cluster for row in rows):
        return ()
    return tuple(f"{row.group}/{row.cluster or row.name}" for row in rows)


def flops_of(row: Row, flops_kind: str) -> float:
    """The run's own FLOPs; 6ND for every row when any row lacks them, so that kinds never mix."""
    if flops_kind == FLOPS_6ND or row.flops is None:
        return FLOPS_PER_PARAM_TOKEN * row.params * row.tokens
    return row.flops


def unusable(row: Row) -> str:
    """Why a row cannot enter a fit; empty when it can. The sign of the loss is judged for all rows."""
    sizes = {"params": row.params, "tokens": row.tokens} if row.sized else {}
    named = {"loss": row.loss, **sizes}
    optional = {"flops": row.flops, "unique_tokens": row.unique_tokens, "weight": row.weight}
    for label, value in {**named, **optional}.items():
        if value is not None and not math.isfinite(value):
            return f"{label} is missing or not a number"
        if value is not None and value <= 0 and label != "loss":
            return f"{label} is not positive"
    return ""


def refuse_mixture(things: str, label: str, found: set[str]) -> None:
    if len(found) > 1:
        shown = ", ".join(sorted(h[:12] or "(unknown)" for h in found))
        raise CannotAnswer(
            f"the runs have different {things} ({label} {shown}); fit one at a time with where="
        )


def summary(dropped: Sequence[Skipped]) -> str:
    """Counts by reason, such as '3 duplicate, 1 diverged'."""
    counts: dict[str, int] = {}
    for item in dropped:
        counts[item.reason] = counts.get(item.reason, 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
