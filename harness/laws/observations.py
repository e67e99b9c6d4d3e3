"""The rows a law is fitted to, with the conventions they were measured in and what was left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats
from harness.runs import RunRecord, Skipped, content_hash

FLOPS_EXACT, FLOPS_GIVEN = "exact", "as given"
FLOPS_6ND = "6ND (approximation)"
SAME_SIZE = 1.02
"""Sizes within this factor count as one: rungs of a ladder lie further apart, rounding does not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate row, not yet checked. `group_tag`, hashes and seed may be empty."""

    name: str
    params: float
    tokens: float
    flops: float | None
    loss: float
    group: str = ""
    seed: str = ""
    corpus_hash: str = ""
    tokenizer_hash: str = ""
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Clean rows in a canonical order, so that no result depends on the order of the input.

    `loss` is in `loss_unit`; `params` counts what `params_kind` says; `flops` is of the kind
    `flops_kind` names.
    """

    params: Floats
    tokens: Floats
    flops: Floats
    loss: Floats
    run_ids: tuple[str, ...]
    groups: tuple[str, ...]
    seeds: tuple[str, ...]
    corpus_hashes: tuple[str, ...]
    tokenizer_hashes: tuple[str, ...]
    params_kind: ParamsKind
    loss_unit: LossUnit
    flops_kind: str
    dropped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def conventions(self) -> dict[str, str]:
        return {
            "params": self.params_kind.value,
            "loss": self.loss_unit.value,
            "flops": self.flops_kind,
            "tokens": "seen",
        }

    def data_hash(self) -> str:
        """SHA-256 of the numbers and conventions; names and order play no part."""
        columns = {name: getattr(self, name).tolist() for name in ("params", "tokens", "flops", "loss")}
        hashes = sorted({*self.corpus_hashes, *self.tokenizer_hashes} - {""})
        return content_hash({**columns, "conventions": self.conventions, "hashes": hashes})

    def subset(self, keep: Sequence[bool] | Any) -> Observations:
        """The rows where `keep` is true, with the same conventions."""
        at = np.flatnonzero(np.asarray(keep))

        def names(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in at)

        return Observations(
            params=self.params[at],
            tokens=self.tokens[at],
            flops=self.flops[at],
            loss=self.loss[at],
            run_ids=names(self.run_ids),
            groups=names(self.groups),
            seeds=names(self.seeds),
            corpus_hashes=names(self.corpus_hashes),
            tokenizer_hashes=names(self.tokenizer_hashes),
            params_kind=self.params_kind,
            loss_unit=self.loss_unit,
            flops_kind=self.flops_kind,
            dropped=self.dropped,
        )


def observations_from_records(
    records: Sequence[RunRecord],
    skipped: Sequence[Skipped],
    params: ParamsKind = ParamsKind.total,
    loss_unit: LossUnit = LossUnit.nats_per_token,
) -> Observations:
    """Rows from finished runs; `skipped` are the runs already left out by the reader.

    Raises CannotAnswer when nothing is left, or when corpora or tokenizers differ.
    """
    rows = [row_of_record(record, params, loss_unit) for record in records]
    return collect(rows, params, loss_unit, FLOPS_EXACT, skipped)


def row_of_record(record: RunRecord, params: ParamsKind, loss_unit: LossUnit) -> Row:
    total = params is ParamsKind.total
    loss = record.loss if loss_unit is LossUnit.nats_per_token else record.bits_per_byte
    return Row(
        name=record.run_id,
        params=record.params_total if total else record.params_non_embedding,
        tokens=record.tokens,
        flops=record.flops,
        loss=math.nan if loss is None else loss,
        group=record.group,
        seed=f"{record.seed}/{record.data_seed}",
        corpus_hash=record.corpus_hash,
        tokenizer_hash=record.tokenizer_hash,
        fault="" if record.status == "done" else record.status,
    )


def collect(
    rows: Sequence[Row],
    params: ParamsKind,
    loss_unit: LossUnit,
    flops_kind: str,
    skipped: Sequence[Skipped] = (),
) -> Observations:
    """Drop what cannot be used, visibly, and put the rest in order.

    Raises CannotAnswer when nothing is left, or when corpora or tokenizers differ.
    """
    kept: list[Row] = []
    dropped = list(skipped)
    names: set[str] = set()
    contents: set[tuple[Any, ...]] = set()
    for row in sorted(rows, key=lambda r: (r.params, r.tokens, r.loss, r.name)):
        content = (row.group, row.params, row.tokens, row.loss, row.seed)
        repeated = "duplicate" if (row.name and row.name in names) or content in contents else ""
        fault = row.fault or unusable(row) or repeated
        if fault:
            dropped.append(Skipped(row.name, fault))
            continue
        names.add(row.name)
        contents.add(content)
        kept.append(row)
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
        dropped=tuple(dropped),
    )


def flops_of(row: Row, flops_kind: str) -> float:
    """The run's own FLOPs; 6ND for every row when any row lacks them, so that kinds never mix."""
    if flops_kind == FLOPS_6ND or row.flops is None:
        return FLOPS_PER_PARAM_TOKEN * row.params * row.tokens
    return row.flops


def unusable(row: Row) -> str:
    """Why a row cannot enter a fit; empty when it can."""
    for label, value in (("loss", row.loss), ("params", row.params), ("tokens", row.tokens)):
        if not math.isfinite(value):
            return f"{label} is missing or not a number"
        if value <= 0:
            return f"{label} is not positive"
    if row.flops is not None and not (math.isfinite(row.flops) and row.flops > 0):
        return "flops is not positive"
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


def levels(values: Floats, factor: float = SAME_SIZE) -> int:
    """How many distinct values there are, those within `factor` of a level's smallest counted once."""
    count, bound = 0, -math.inf
    for value in np.sort(values):
        if value > bound:
            count, bound = count + 1, value * factor
    return count


def cells(observations: Observations) -> list[list[int]]:
    """Row numbers by cell: rows of equal params and tokens."""
    found: dict[tuple[float, float], list[int]] = {}
    for i, key in enumerate(zip(observations.params.tolist(), observations.tokens.tolist(), strict=True)):
        found.setdefault(key, []).append(i)
    return list(found.values())


def best_of_cell(observations: Observations) -> Observations:
    """Keep the lowest loss per (params, tokens); the rest are dropped by name."""
    keep = np.zeros(len(observations), dtype=bool)
    for rows in cells(observations):
        keep[min(rows, key=lambda i: observations.loss[i])] = True
    left = [
        Skipped(n, "not the best of its cell")
        for n, k in zip(observations.run_ids, keep, strict=True)
        if not k
    ]
    best = observations.subset(keep)
    return Observations(**{**vars(best), "dropped": (*observations.dropped, *left)})
