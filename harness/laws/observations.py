"""The rows a law is fitted to, with the conventions they were measured in and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import WrongInput
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.surfaces import Floats
from harness.runs import Skipped, content_hash

if TYPE_CHECKING:
    from harness.laws.seeds import SeedNoise


FLOPS_EXACT, FLOPS_GIVEN = "exact", "as given"
FLOPS_6ND = "6ND (approximation)"
SAME_SIZE = 1.02
"""Sizes within this factor count as one: rungs of a ladder lie further apart, rounding does not."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate row, not yet checked. Group, hashes and seed may be empty, `unique_tokens` unknown.

    `seed` is that of the initial weights, or `init/data order/validation windows` as far as they are known.
    `weight` multiplies the row's loss in a fit. `cluster` names what is drawn together when whole runs
    are resampled, such as a trunk with its branches; by default the run itself.
    Rows of one group and name are points of one run, in the order of `tokens`, then `step`. `sized` is
    false for a row that has FLOPs and a loss alone: params and tokens are then NaN.
    """

    name: str
    params: float
    tokens: float
    flops: float | None
    loss: float
    group: str = ""
    seed: str = ""
    corpus_hash: str = ""
    tokenizer_hash: str = ""
    unique_tokens: float | None = None
    weight: float = 1.0
    cluster: str = ""
    step: float = 0.0
    lr: float | None = None
    batch_tokens: float | None = None
    fault: str = ""
    sized: bool = True

    @property
    def place(self) -> tuple[float, float]:
        """Where it lies: params and tokens, or FLOPs alone."""
        return (self.params, self.tokens) if self.sized else (0.0, self.flops or 0.0)


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Clean rows in a canonical order, so that no result depends on the order of the input.

    `loss` is in `loss_unit`; `params` counts what `params_kind` says; `flops` is of the kind
    `flops_kind` names. `unique_tokens` is None unless every row has it, `weights` when all are equal.
    `clusters` is empty when no row names one: every row is then a run of its own. Rows read for a law of
    compute alone may not be `sized`: params and tokens are then NaN, on every row.

    `lr` and `batch_tokens` are None unless every row has them. `trials` are the rows that the best of each
    cell was chosen from, None where no choice was made; `diverged` are runs that ended without a loss.
    `noise_floor` is the noise of a single run where it was measured on other runs than these.
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
    unique_tokens: Floats | None = None
    weights: Floats | None = None
    clusters: tuple[str, ...] = ()
    dropped: tuple[Skipped, ...] = ()
    lr: Floats | None = None
    batch_tokens: Floats | None = None
    diverged: tuple[Row, ...] = ()
    trials: Observations | None = None
    noise_floor: SeedNoise | None = None

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def sized(self) -> bool:
        """Whether params and tokens are known."""
        return bool(np.isfinite(self.params).all())

    @property
    def conventions(self) -> dict[str, str]:
        return {
            "params": self.params_kind.value if self.sized else "unknown",
            "loss": self.loss_unit.value,
            "flops": self.flops_kind,
            "tokens": "seen" if self.sized else "unknown",
            "unique_tokens": "unknown" if self.unique_tokens is None else "known for every run",
        }

    @property
    def columns(self) -> dict[str, Floats | None]:
        """What a law may read, by name; None where it is not known for every run."""
        sizes = {name: getattr(self, name) if self.sized else None for name in ("params", "tokens")}
        return {**sizes, "flops": self.flops, "unique_tokens": self.unique_tokens}

    @property
    def epochs(self) -> Floats | None:
        """Passes over the unique tokens, at least one; None where those are unknown."""
        return None if self.unique_tokens is None else np.maximum(self.tokens / self.unique_tokens, 1.0)

    def data_hash(self) -> str:
        """SHA-256 of the numbers and conventions; names and order play no part."""
        read = {**self.columns, "loss": self.loss, "weights": self.weights}
        columns = {name: column.tolist() for name, column in read.items() if column is not None}
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
            unique_tokens=None if self.unique_tokens is None else self.unique_tokens[at],
            weights=None if self.weights is None else self.weights[at],
            clusters=names(self.clusters) if self.clusters else (),
            dropped=self.dropped,
            lr=None if self.lr is None else self.lr[at],
            batch_tokens=None if self.batch_tokens is None else self.batch_tokens[at],
            diverged=self.diverged,
            trials=None if self.trials is None else self.trials.subset(self.trials.within(self, at)),
            noise_floor=self.noise_floor,
        )

    def within(self, other: Observations, rows: Sequence[int] | Any) -> list[bool]:
        """Which of these rows lie in the cell of one of the `rows` of `other`."""
        kept: dict[float, list[float]] = {}
        for size, tokens in zip(other.params[rows].tolist(), other.tokens[rows].tolist(), strict=True):
            kept.setdefault(size, []).append(tokens)
        return [
            any(1 / SAME_SIZE <= tokens / one <= SAME_SIZE for one in kept.get(size, ()))
            for size, tokens in zip(self.params.tolist(), self.tokens.tolist(), strict=True)
        ]


def level_starts(values: Floats, factor: float = SAME_SIZE) -> list[float]:
    """The smallest value of each level, in order; values within `factor` of it are of its level."""
    found: list[float] = []
    for value in np.unique(values).tolist():
        if not found or value > found[-1] * factor:
            found.append(value)
    return found


def levels(values: Floats, factor: float = SAME_SIZE) -> int:
    """How many there are, see `level_starts`."""
    return len(level_starts(values, factor))


def cells(observations: Observations) -> list[list[int]]:
    """Row numbers by cell: equal params, and tokens that whole steps of one batch or another set apart."""
    found: list[list[int]] = []
    for size in np.unique(observations.params):
        mine = np.flatnonzero(observations.params == size)
        starts = level_starts(observations.tokens[mine])
        numbers = np.searchsorted(starts, observations.tokens[mine], side="right")
        found += [mine[numbers == number].tolist() for number in range(1, len(starts) + 1)]
    return found


def best_of_cell(observations: Observations) -> Observations:
    """Keep the lowest loss per (params, tokens); the rest are dropped by name. Raises WrongInput when
    these are not known."""
    if not observations.sized:
        raise WrongInput("best_of=cell needs the columns of params and tokens, which these rows lack")
    keep = np.zeros(len(observations), dtype=bool)
    for rows in cells(observations):
        keep[min(rows, key=lambda i: observations.loss[i])] = True
    left = [
        Skipped(n, "not the best of its cell")
        for n, k in zip(observations.run_ids, keep, strict=True)
        if not k
    ]
    best = observations.subset(keep)
    return replace(best, dropped=(*observations.dropped, *left), trials=observations)
