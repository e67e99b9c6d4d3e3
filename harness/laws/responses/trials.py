"""The runs of a sweep by the settings they tried."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.laws.forms.form import RowNumbers
from harness.laws.observations import SAME_SIZE, Observations, level_starts
from harness.laws.surfaces import Floats


@dataclass(frozen=True, eq=False)
class Trials:
    """Runs that tried settings: [n] each, `loss` infinite for a run that diverged; names [n]."""

    names: tuple[str, ...]
    params: Floats
    tokens: Floats
    lr: Floats
    batch_tokens: Floats
    loss: Floats

    def at(self, rows: RowNumbers) -> Trials:
        names = tuple(self.names[i] for i in rows)
        return Trials(names, *(column[rows] for column in self.columns))

    @property
    def columns(self) -> tuple[Floats, ...]:
        return self.params, self.tokens, self.lr, self.batch_tokens, self.loss


def trials_of(observations: Observations) -> Trials | None:
    """Every run whose learning rate is known, before any choice of the best; None where rates are not.

    A run that diverged counts in every rung of its size that is at least as long.
    """
    whole = observations.trials or observations
    if whole.lr is None or not whole.sized:
        return None
    unknown = np.full(len(whole), math.nan)
    known = Trials(
        whole.run_ids,
        whole.params,
        whole.tokens,
        whole.lr,
        unknown if whole.batch_tokens is None else whole.batch_tokens,
        whole.loss,
    )
    broken = [
        (row.params, tokens, row.lr, row.batch_tokens or math.nan, math.inf, row.name)
        for row in whole.diverged
        if row.lr is not None and (row.batch_tokens is None) == (whole.batch_tokens is None)
        for tokens in level_starts(whole.tokens[whole.params == row.params])
        if not row.tokens > tokens
    ]
    added = np.array([row[:5] for row in broken], dtype=float).reshape(-1, 5).T
    joined = (np.concatenate(pair) for pair in zip(known.columns, added, strict=True))
    return Trials((*known.names, *(row[5] for row in broken)), *joined)


def by_rung(trials: Trials) -> Iterator[Trials]:
    """The runs of each (params, tokens), in order."""
    for size in np.unique(trials.params):
        mine = trials.params == size
        for start in level_starts(trials.tokens[mine]):
            same = mine & (trials.tokens >= start) & (trials.tokens <= start * SAME_SIZE)
            yield trials.at(np.flatnonzero(same))
