"""Loss curves from the learning-rate schedule: the annealing law and the multi-power law.

Both see a schedule as its learning rate at every optimiser step, lr[0] the first, and predict the loss
right after step `steps` (an index into lr). Constants are per model; neither law knows its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

from harness.errors import WrongInput
from harness.laws.fit import Fit, fit_form
from harness.laws.forms.form import Form, Rows, amplitude, exponent, irreducible
from harness.laws.forms.starts import projected
from harness.laws.objective import Objective
from harness.laws.surfaces import Floats

Steps = npt.NDArray[np.integer]

MOMENTUM = 0.999
"""lambda of the annealing law, as in its authors' demonstration; held, not fitted."""

SMALLEST_RATE = 1e-9
"""Of the peak: a learning rate of exactly zero has no power -gamma."""

ELEMENTS_AT_ONCE = 1 << 20
"""Of the steps x changes matrix; bounds the memory to about 50 MB."""

FIT_MERGE = 16
"""Neighbouring changes of the learning rate merged while fitting; measured on a 24,000-step cosine, the
loss moves by at most 2.1e-5 nats."""

SMALLEST_START = 1e-2
"""Of an amplitude, in nats; a negative one has no logarithm."""

BEGUN = 2
"""Starts of the multi-power fit, the best of a grid by linear least squares; measured on three model sizes,
nine starts end in the same minima."""


@dataclass(frozen=True)
class Curve:
    """One run: the learning rate at every step, and the loss after some of them."""

    lr: Floats
    steps: Steps
    loss: Floats

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.loss):
            raise WrongInput(f"a curve has {len(self.steps)} steps and {len(self.loss)} losses")
        if len(self.steps) and not 0 <= self.steps.min() <= self.steps.max() < len(self.lr):
            raise WrongInput(
                f"a curve is logged up to step {self.steps.max()} of a {len(self.lr)}-step schedule"
            )


def warmed_at_peak(lr: Floats) -> Floats:
    """The schedule with its warm-up counted at the peak, as the annealing law wants it."""
    peak = int(np.argmax(lr))
    return np.concatenate([np.full(peak, lr[peak]), lr[peak:]])


def annealing_areas(lr: Floats, momentum: float = MOMENTUM) -> tuple[Floats, Floats]:
    """S1 = sum of eta, S2 = sum of m with m_i = lambda m_(i-1) + eta_(i-1) - eta_i, after every step."""
    falls = -np.diff(lr, prepend=lr[0])
    return np.cumsum(lr), np.cumsum(signal.lfilter([1.0], [1.0, -momentum], falls))


def evaluate_annealing(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
    floor, a, alpha, c = values
    area, annealing = rows["lr_sum"], rows["annealing"]
    power = area**-alpha
    loss = floor + a * power - c * annealing
    return loss, [np.ones_like(a), power, -a * power * np.log(area), -annealing]


def annealing_starts(rows: Rows, loss: Floats) -> Floats:
    """The drop C S2 enters with a minus, so it starts at zero, one and ten times the loss it may explain."""
    area, annealing = rows["lr_sum"], rows["annealing"]
    reach = float(loss.std()) / max(float(np.abs(annealing).max()), 1e-12)
    found = []
    for share in (0.01, 0.3, 1.0):
        shapes = [(float(alpha),) for alpha in np.linspace(0.2, 1.0, 9)]
        for (floor, a), (alpha,) in projected(
            shapes, lambda alpha: [np.ones(1), area**-alpha], loss + share * reach * annealing
        ):
            found.append([floor, a, alpha, share * reach])
    return np.array(found)


TISSUE = Form(
    name="tissue",
    parameters=(irreducible("L0"), amplitude("A"), exponent("alpha"), amplitude("C")),
    columns=("lr_sum", "annealing"),
    signed=("annealing",),
    evaluate=evaluate_annealing,
    starts=annealing_starts,
)
"""L = L0 + A S1^-alpha - C S2, Tissue, Wang and Wang 2408.11029."""


def annealing_rows(lr: Floats, steps: Steps, momentum: float = MOMENTUM) -> dict[str, Floats]:
    """The columns of `TISSUE` at `steps`, warm-up counted at the peak."""
    area, annealing = annealing_areas(warmed_at_peak(lr), momentum)
    return {"lr_sum": area[steps], "annealing": annealing[steps]}


def fit_tissue(curves: Sequence[Curve], how: Objective | None = None) -> Fit:
    """One set of constants for all curves of a model; the rate `MOMENTUM` is held."""
    parts = [annealing_rows(curve.lr, curve.steps) for curve in curves]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in TISSUE.columns}
    return fit_form(TISSUE, rows, np.concatenate([curve.loss for curve in curves]), how)


@dataclass(frozen=True)
class Changes:
    """Where a schedule changes: by how much, to which rate, and the learning-rate sum before it. [k]"""

    gap: Floats
    rate: Floats
    before: Floats


def changes(lr: Floats, merge: int = 1) -> Changes:
    """Every change of the learning rate, warm-up rises included as in the authors' code.

    `merge` joins that many neighbouring steps of equal direction, weighted by their gaps.
    """
    gaps, sums = np.diff(lr), np.cumsum(lr)
    at = np.flatnonzero(gaps)
    apart = (np.diff(at) > 1) | (np.sign(gaps[at])[1:] != np.sign(gaps[at])[:-1])
    first = np.concatenate([[0], 1 + np.flatnonzero(apart)]).astype(int)[: len(at)]
    place = np.arange(len(at)) - np.repeat(first, np.diff(np.append(first, len(at))))
    heads = np.flatnonzero(place % merge == 0)
    if not len(at):
        return Changes(np.zeros(0), np.zeros(0), np.zeros(0))
    gap = np.add.reduceat(gaps[at], heads)
    rate = np.add.reduceat(gaps[at] * lr[at + 1], heads) / gap
    before = np.add.reduceat(gaps[at] * sums[at], heads) / gap
    return Changes(gap, np.maximum(rate, SMALLEST_RATE * lr.max()), before)


def drop(found: Changes, area: Floats, c: float, beta: float, gamma: float) -> tuple[Floats, ...]:
    """sum_k gap_k [1 - (1 + C eta_k^-gamma S_k)^-beta] at the learning-rate sums `area` [n], and its
    derivatives by C, beta and gamma. S_k is the sum from change k on; changes still to come have none."""
    n, log_rate = len(area), np.log(found.rate)
    speed = c * np.exp(-gamma * log_rate)
    totals = np.zeros((4, n))
    chunk = max(1, ELEMENTS_AT_ONCE // max(len(speed), 1))
    for start in range(0, n, chunk):
        here = slice(start, start + chunk)
        until = int(np.searchsorted(found.before, area[here].max()))
        x = np.maximum(area[here, None] - found.before[:until], 0.0) * speed[:until]
        log_x = np.log1p(x)
        left = np.exp(-beta * log_x)
        gap = found.gap[:until]
        rise = beta * left * x / (1 + x)
        totals[0, here] = (1 - left) @ gap
        totals[1, here] = rise @ gap / c
        totals[2, here] = (left * log_x) @ gap
        totals[3, here] = -rise @ (gap * log_rate[:until])
    return tuple(totals)


def predict_multi_power(params: dict[str, float], lr: Floats, steps: Steps, merge: int = 1) -> Floats:
    """The loss after `steps` [n]. Costs steps times changes; `merge` divides the changes."""
    form = multi_power([lr], [steps], merge)
    loss, _ = form.evaluate(form.values(params)[:, None, None], multi_power_rows([lr], [steps]))
    return loss[0]


def multi_power_rows(schedules: Sequence[Floats], steps: Sequence[Steps]) -> dict[str, Floats]:
    sums = [np.cumsum(lr)[at] for lr, at in zip(schedules, steps, strict=True)]
    return {"lr_sum": np.concatenate(sums)}


def multi_power(schedules: Sequence[Floats], steps: Sequence[Steps], merge: int = 1) -> Form:
    """L = L0 + A S1^-alpha + B drop, Luo et al. 2503.12811, over these schedules.

    The paper sums the drops of the learning rate with a minus; the authors' code, whose constants these
    are, sums every change, and the rises of the warm-up move the loss by 3 to 5 %.
    """
    found = [changes(lr, merge) for lr in schedules]
    lengths = [len(at) for at in steps]

    def drops(area: Floats, c: float, beta: float, gamma: float) -> Floats:
        parts = np.split(area, np.cumsum(lengths)[:-1])
        return np.concatenate(
            [np.array(drop(f, part, c, beta, gamma)) for f, part in zip(found, parts, strict=True)], axis=1
        )

    def evaluate(values: Floats, rows: Rows) -> tuple[Floats, list[Floats]]:
        floor, a, alpha, b, c, beta, gamma = values
        area = rows["lr_sum"]
        shapes = zip(c[:, 0], beta[:, 0], gamma[:, 0], strict=True)
        fall, by_c, by_beta, by_gamma = np.stack([drops(area, *map(float, s)) for s in shapes], axis=1)
        power = area**-alpha
        loss = floor + a * power + b * fall
        by_power = [np.ones_like(a), power, -a * power * np.log(area)]
        return loss, [*by_power, fall, b * by_c, b * by_beta, b * by_gamma]

    def starts(rows: Rows, loss: Floats) -> Floats:
        area = rows["lr_sum"]
        begun = []
        for c, beta, gamma in ((1.0, 0.5, 0.5), (2.0, 0.6, 0.65), (0.4, 0.2, 0.8)):
            fall = drops(area, c, beta, gamma)[0]
            for alpha in (0.3, 0.45, 0.6):
                columns = np.column_stack([np.ones(len(loss)), area**-alpha, fall]) / loss[:, None]
                (floor, a, b), *_ = np.linalg.lstsq(columns, np.ones(len(loss)), rcond=None)
                miss = float(((columns @ (floor, a, b) - 1) ** 2).sum())
                amplitudes = [max(a, SMALLEST_START), alpha, max(b, SMALLEST_START)]
                begun.append((miss, [max(floor, 0.1 * loss.min()), *amplitudes, c, beta, gamma]))
        return np.array([start for _, start in sorted(begun)[:BEGUN]])

    return Form(
        name="multi_power",
        parameters=(
            *(irreducible("L0"), amplitude("A"), exponent("alpha"), amplitude("B"), amplitude("C")),
            *(exponent("beta"), exponent("gamma")),
        ),
        columns=("lr_sum",),
        evaluate=evaluate,
        starts=starts,
        second_derivatives=False,
    )


def fit_multi_power(curves: Sequence[Curve], how: Objective | None = None, merge: int = FIT_MERGE) -> Fit:
    """One set of constants for all curves of a model; predict with `predict_multi_power`."""
    schedules, steps = [curve.lr for curve in curves], [curve.steps for curve in curves]
    form = multi_power(schedules, steps, merge)
    loss = np.concatenate([curve.loss for curve in curves])
    return fit_form(form, multi_power_rows(schedules, steps), loss, how)
