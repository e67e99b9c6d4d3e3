"""Task accuracy of a larger run in two steps: size and data give a loss, the loss gives accuracy.

Bhagia et al. 2412.04403: loss or task bits per byte = E + A/N^alpha + B/D^beta, accuracy a scaled sigmoid of
it. Gadre et al. 2403.08540: the over-training law, error = epsilon - k exp(-gamma L).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.errors import WrongInput
from harness.laws.config import FitConfig, LawName, Resampling
from harness.laws.forms.accuracy import ACCURACY, ERROR
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.forms.form import RowNumbers
from harness.laws.forms.overtrain import OVERTRAIN
from harness.laws.objective import Objective, Response, objective_of
from harness.laws.responses.resample import resample
from harness.laws.responses.result import ResponseFit, bootstrap_json
from harness.laws.responses.source import Source, run_numbers, within
from harness.laws.responses.step import Step, close, fit_step
from harness.laws.surfaces import Floats
from harness.laws.tables import ColumnTable

LEAST_SQUARES = Objective(response=Response.loss, delta=math.inf)

UNDER_A_CEILING = replace(LEAST_SQUARES, fixed={"b": 1.0})

NOTHING_AND_ALL = {"a": -1.0, "b": 1.0}
"""Where the sigmoid may end: tasks that are not multiple choice begin at an accuracy of zero."""

SKIPPED_SHARE, WINDOW = 0.1, 5
"""Of each run's checkpoints, as in Bhagia et al.: the first tenth is left out, and loss and accuracy are
means over five evaluations."""

PERFECT = (0.0, 1.0)
"""The point they add to the checkpoints: at a loss of zero everything is answered. It decides the ceiling,
and with it the prediction: without it their 13B MMLU would be 45.7 % instead of 51.3 %, seen 51.6 %."""


def fit_downstream(source: Source, config: FitConfig, checkpoints: Source | None = None) -> ResponseFit:
    """Accuracy from params, tokens, loss and accuracy of finished runs.

    With `checkpoints`, a table of evaluations under the same run_id (tokens, loss, accuracy), the second
    step sees every checkpoint, and a run's own loss is the mean of its last evaluations. Raises
    CannotAnswer for an accuracy outside [0, 1] or too few rows.
    """
    size = f"params_{config.params.value}"
    if checkpoints is None:
        table = source.read(size, "tokens", "loss", "accuracy")
        within(table, "accuracy", 0, 1)
        accuracy = fit_accuracy(table.values["loss"], table.values["accuracy"])
    else:
        if config.resampling is Resampling.residuals:
            raise WrongInput("checkpoints of a run are not independent: fit.resampling=cases or sizes")
        table, seen = with_checkpoints(source, size, checkpoints)
        within(table, "accuracy", 0, 1)
        accuracy = fit_accuracy_of_checkpoints(*seen)
    loss = fit_loss(table, size, config)
    return ResponseFit(
        law=LawName.downstream,
        response="accuracy",
        limits=(0.0, 1.0),
        steps=(loss, accuracy),
        replicates=resample((loss, accuracy), config),
        conventions={
            "params": config.params.value,
            "accuracy": "share of 1",
            "second_step": "finished runs, ceiling 1" if checkpoints is None else "checkpoints and (0, 1)",
        },
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, len(table)),
    )


def fit_loss(table: ColumnTable, size: str, config: FitConfig) -> Step:
    columns = {"params": table.values[size], "tokens": table.values["tokens"]}
    return close(fit_step(CHINCHILLA, columns, table.values["loss"], objective_of(config.law)))


def fit_accuracy(loss: Floats, accuracy: Floats) -> Step:
    """The sigmoid through finished runs [n], least squares, its ceiling held at 1: small models do not see
    it, and one added point would outweigh so few rows (planted laws came out wrong by it)."""
    return fit_step(
        ACCURACY, {"loss": loss}, accuracy, UNDER_A_CEILING, quantity="accuracy", limits=NOTHING_AND_ALL
    )


def fit_accuracy_of_checkpoints(loss: Floats, accuracy: Floats, run: RowNumbers) -> Step:
    """The sigmoid through checkpoints [n] of the runs `run` [n] and `PERFECT`, as Bhagia et al. fit it."""
    x, y, cluster = np.append(loss, PERFECT[0]), np.append(accuracy, PERFECT[1]), np.append(run, -1)
    return fit_step(
        ACCURACY, {"loss": x}, y, LEAST_SQUARES, quantity="accuracy", cluster=cluster, limits=NOTHING_AND_ALL
    )


def fit_downstream_error(source: Source, config: FitConfig) -> ResponseFit:
    """Error of Gadre et al. from params, tokens, loss and error of finished runs; least squares in both
    steps, as there. Raises CannotAnswer for an error outside [0, 1] or too few rows."""
    size = f"params_{config.params.value}"
    table = source.read(size, "tokens", "loss", "error")
    within(table, "error", 0, 1)
    columns = {"params": table.values[size], "tokens": table.values["tokens"]}
    loss = close(fit_step(OVERTRAIN, columns, table.values["loss"], LEAST_SQUARES))
    error = fit_error(table.values["loss"], table.values["error"])
    return ResponseFit(
        law=LawName.downstream_error,
        response="error",
        limits=(0.0, 1.0),
        steps=(loss, error),
        replicates=resample((loss, error), config),
        conventions={"params": config.params.value, "error": "share of 1"},
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, len(table)),
    )


def fit_error(loss: Floats, error: Floats) -> Step:
    return fit_step(ERROR, {"loss": loss}, error, LEAST_SQUARES, quantity="error", limits={"epsilon": 1.0})


def with_checkpoints(
    source: Source, size: str, checkpoints: Source
) -> tuple[ColumnTable, tuple[Floats, Floats, RowNumbers]]:
    """The finished runs with loss and accuracy at their ends, and (loss, accuracy, run) of checkpoints."""
    of_runs = {name: own for name, own in source.columns.items() if name not in ("loss", "accuracy")}
    table = replace(source, columns=of_runs).read(size, "tokens")
    if len(set(table.labels)) < len(table):
        raise WrongInput(f"{source.path}: checkpoints= needs one row per run_id in runs=")
    seen = checkpoints.read("tokens", "loss", "accuracy")
    known = [i for i, label in enumerate(seen.labels) if label in set(table.labels)]
    run = run_numbers([seen.labels[i] for i in known], table.labels)
    tokens, loss, accuracy = (seen.values[name][known] for name in ("tokens", "loss", "accuracy"))
    ends, parts = np.full((2, len(table)), np.nan), []
    for number, label in enumerate(table.labels):
        rows = np.flatnonzero(run == number)
        if not len(rows):
            raise WrongInput(f"{checkpoints.path} has no checkpoint of the run {label!r}")
        rows = rows[np.argsort(tokens[rows], kind="stable")]
        rows = rows[min(math.ceil(SKIPPED_SHARE * len(rows)), len(rows) - 1) :]
        smooth = np.array([running_mean(column[rows], WINDOW) for column in (loss, accuracy)])
        ends[:, number] = smooth[:, -1]
        parts.append((*smooth, np.full(len(rows), number)))
    values = {**table.values, "loss": ends[0], "accuracy": ends[1]}
    x, y, at = (np.concatenate(column) for column in zip(*parts, strict=True))
    return replace(table, values=values), (x, y, at.astype(np.intp))


def running_mean(values: Floats, window: int) -> Floats:
    """The mean of each value and up to window - 1 before it, [n]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(np.arange(len(values)) - window + 1, 0)
    return (sums[1:] - sums[first]) / (np.arange(len(values)) - first + 1)
