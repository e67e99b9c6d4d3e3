"""Planted isoFLOP designs: slices of a known surface, sampled around its true optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_6ND, Observations, Row

CHINCHILLA = (406.4, 410.7, 1.69, 0.34, 0.28)
"""A, B, E, alpha, beta: the rounded constants of Hoffmann et al. 2203.15556."""

SKEWED = (406.4, 410.7, 1.69, 0.465, 0.155)
EPOCH = (482.01, 2085.43, 1.8172, 0.3478, 0.3658)
"""Besiroglu et al. 2404.10102."""

Law = tuple[float, float, float, float, float]


def optimal_tokens(law: Law, flops: float) -> float:
    """D* = (C/6)^(alpha/(alpha+beta)) / G."""
    a, b, _, alpha, beta = law
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    return (flops / 6) ** (alpha / (alpha + beta)) / g


def isoflop_design(
    law: Law = CHINCHILLA,
    width: float = 16.0,
    points: int = 15,
    budgets: Sequence[float] = (1e17, 1e18, 1e19, 1e20, 1e21),
    noise: float = 0.0,
    seed: int = 0,
    shift: float = 1.0,
) -> Observations:
    """`points` log-spaced token counts from D*/width to D* width at each budget, times `shift`."""
    a, b, e, alpha, beta = law
    rng, rows = np.random.default_rng(seed), []
    for flops in budgets:
        for tokens in shift * optimal_tokens(law, flops) * np.geomspace(1 / width, width, points):
            params = flops / 6 / tokens
            loss = (e + a / params**alpha + b / tokens**beta) * np.exp(noise * rng.standard_normal())
            rows.append(Row(name=f"{len(rows)}", params=params, tokens=tokens, flops=None, loss=loss))
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)


def with_two_seeds(rows: Observations) -> Observations:
    """Every run twice, 1 % above and below."""
    names = ("run_ids", "groups", "seeds", "corpus_hashes", "tokenizer_hashes")
    return replace(
        rows,
        **{name: np.repeat(getattr(rows, name), 2) for name in ("params", "tokens", "flops")},
        loss=np.ravel(np.column_stack([rows.loss * 1.01, rows.loss / 1.01])),
        **{name: tuple(x for x in getattr(rows, name) for _ in range(2)) for name in names},
    )
