"""Repeated sampling: pass@k without bias, and the coverage law through it (Brown et al. 2407.21787)."""

from __future__ import annotations

import math

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import FitConfig, LawName
from harness.laws.forms.coverage import COVERAGE
from harness.laws.objective import Objective, Response
from harness.laws.responses.resample import refit, resample
from harness.laws.responses.result import ResponseFit, bootstrap_json, require_cases
from harness.laws.responses.source import Source, within
from harness.laws.responses.step import fit_step
from harness.laws.surfaces import Floats
from harness.laws.tables import ColumnTable

LEAST_SQUARES = Objective(response=Response.loss, delta=math.inf)

NO_VERIFIER = (
    "coverage counts a problem as solved when any sample is right; choosing the right one without a verifier "
    "(majority vote, reward model) stops improving near 100 samples (Brown et al. 2407.21787)"
)
ONE_CURVE = (
    "the points of one coverage curve share their samples, so intervals from them are too narrow; give the "
    "counts of each problem (attempts, correct)"
)


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """1 - C(n-c, k)/C(n, k): the chance that k of n attempts, c of them right, hold a right one.

    A product of min(c, k) factors, so that it neither overflows nor loses digits for many attempts
    (estimator of Chen et al. 2107.03374). Raises WrongInput unless 0 <= c <= n and 1 <= k <= n.
    """
    n, c = attempts, correct
    if not (0 <= c <= n and 1 <= k <= n):
        raise WrongInput(f"pass@{k} of {c} right in {n} attempts: correct and k must not exceed attempts")
    if n - c < k:
        return 1.0
    few, many = min(c, k), max(c, k)
    return 0.0 if c == 0 else float(-np.expm1(np.log1p(-many / (n - np.arange(few))).sum()))


def fit_coverage(source: Source, config: FitConfig) -> ResponseFit:
    """From a curve (samples, coverage), or from counts per problem (attempts, correct).

    Raises CannotAnswer for coverage outside (0, 1], counts that are not whole, or too few rows.
    """
    if source.has("attempts", "correct"):
        return from_counts(source, config)
    table = source.read("samples", "coverage")
    within(table, "coverage", 0, 1)
    whole(table, "samples")
    step = fit_step(
        COVERAGE,
        {"samples": table.values["samples"]},
        table.values["coverage"],
        LEAST_SQUARES,
        quantity="coverage",
    )
    return ResponseFit(
        law=LawName.coverage,
        response="coverage",
        limits=(0.0, 1.0),
        steps=(step,),
        replicates=resample((step,), config),
        conventions={"coverage": "share of problems"},
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, len(table)),
        notes=(NO_VERIFIER, ONE_CURVE),
    )


def from_counts(source: Source, config: FitConfig) -> ResponseFit:
    """Coverage at 1, 2, 4, ... up to the fewest attempts; a replicate redraws problems, and nothing else."""
    require_cases(config, "problems")
    table = source.read("attempts", "correct")
    for name in ("attempts", "correct"):
        whole(table, name, least=0 if name == "correct" else 1)
    k, solved = pass_matrix(table)
    coverage = solved.mean(axis=0)
    seen = coverage > 0
    if not seen.any():
        raise CannotAnswer("no problem was solved once; coverage is zero at every k")
    k, solved, coverage = k[seen], solved[:, seen], coverage[seen]
    step = fit_step(COVERAGE, {"samples": k}, coverage, LEAST_SQUARES, quantity="coverage")
    problems = len(table)
    drawn = np.random.default_rng(config.seed).multinomial(
        problems, np.full(problems, 1 / problems), size=config.bootstraps
    )
    return ResponseFit(
        law=LawName.coverage,
        response="coverage",
        limits=(0.0, 1.0),
        steps=(step,),
        replicates=(refit(step, targets=drawn @ solved / problems),),
        conventions={"coverage": "share of problems, pass@k without bias", "resampling": "problems"},
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, len(table)),
        notes=(NO_VERIFIER,),
        details={
            "coverage": [
                {"samples": int(at), "coverage": float(share)} for at, share in zip(k, coverage, strict=True)
            ]
        },
    )


def pass_matrix(table: ColumnTable) -> tuple[Floats, Floats]:
    """k [m] and pass@k [problems, m]."""
    attempts, correct = (table.values[name].astype(int) for name in ("attempts", "correct"))
    if (bad := correct > attempts).any():
        raise CannotAnswer(f"{int(bad.sum())} problems have more correct samples than attempts")
    k = 2 ** np.arange(int(math.log2(attempts.min())) + 1)
    pairs = zip(attempts.tolist(), correct.tolist(), strict=True)
    return k.astype(float), np.array([[pass_at_k(n, c, int(at)) for at in k] for n, c in pairs])


def whole(table: ColumnTable, name: str, least: int = 1) -> None:
    """Raises CannotAnswer when a value of the column is no whole number of at least `least`."""
    column = table.values[name]
    bad = int(((column != np.round(column)) | (column < least)).sum())
    if bad:
        raise CannotAnswer(f"{name} must be a whole number, at least {least}; {bad} of {len(column)} are not")
