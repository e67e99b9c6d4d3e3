"""What a scaling-law form is: names, columns, value with gradient, starts, optimum at a budget.

A form is written in its natural parameters. `evaluate` takes them along the first axis, shaped [p, K, 1]
for K parameter vectors, and columns of n rows, so that plain arithmetic broadcasts to [K, n].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import CannotAnswer, WrongInput
from harness.laws.conventions import SIX_ND, SIZES, TokenCost
from harness.laws.surfaces import Floats

Rows = Mapping[str, Floats]
"""Columns by name: params, tokens, unique_tokens (counts), flops (FLOPs), each [n]."""

Evaluate = Callable[[Floats, Rows], tuple[Floats, Sequence[Floats]]]
"""(values [p, K, 1], rows) -> loss [K, n] and its derivative by each parameter, broadcastable to [K, n]."""

Starts = Callable[[Rows, Floats], Floats]
"""(rows, loss [n]) -> starting values [k, p]; deterministic."""

Allocation = Callable[[Floats, float], tuple[float, float]]
"""(values [p], flops) -> the params and tokens that minimise the loss under C = 6 N D."""

RowNumbers = npt.NDArray[np.intp]

Keep = Callable[[Rows, Floats], RowNumbers]
"""(rows, loss [n]) -> the rows a fit uses."""


@dataclass(frozen=True)
class Parameter:
    """Bounds in natural units. `log` searches the logarithm (positive parameters); `floor` marks an
    irreducible loss, whose bounds are multiples of the smallest observed loss."""

    name: str
    low: float
    high: float
    log: bool = True
    floor: bool = False


AMPLITUDE = (1e-60, 1e60)
EXPONENT = (1e-2, 3.0)
FLOOR = (1e-4, 1.0)
"""Usual bounds; a fit that ends on one is not identified."""


def amplitude(name: str) -> Parameter:
    return Parameter(name, *AMPLITUDE)


def exponent(name: str) -> Parameter:
    return Parameter(name, *EXPONENT)


def irreducible(name: str = "E") -> Parameter:
    return Parameter(name, *FLOOR, floor=True)


def every_row(rows: Rows, loss: Floats) -> RowNumbers:
    return np.arange(len(loss))


@dataclass(frozen=True)
class Form:
    """One law. `allocation` is its closed-form optimum, None where only the numeric search exists.

    Columns must be positive but for the `signed` ones. Without `second_derivatives` the fit is Gauss-Newton:
    for a form that is dear to evaluate.
    """

    name: str
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    evaluate: Evaluate
    starts: Starts
    allocation: Allocation | None = None
    keep: Keep = every_row
    signed: tuple[str, ...] = ()
    second_derivatives: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def values(self, params: Mapping[str, float]) -> Floats:
        """[p] in the order of `parameters`. Raises WrongInput for a missing or unknown name."""
        if set(params) != set(self.names):
            raise WrongInput(f"{self.name} has the parameters {', '.join(self.names)}, not {sorted(params)}")
        return np.array([params[name] for name in self.names], dtype=float)

    def rows(self, given: Mapping[str, object]) -> dict[str, Floats]:
        """The columns this form reads, as arrays. Raises WrongInput when one is missing."""
        missing = [name for name in self.columns if name not in given]
        if missing:
            raise WrongInput(f"{self.name} needs the column {', '.join(missing)}")
        return {name: np.atleast_1d(np.asarray(given[name], dtype=float)) for name in self.columns}


def predict(form: Form, params: Mapping[str, float], columns: Mapping[str, object]) -> Floats:
    """The loss [n], in the unit the parameters were fitted in."""
    loss, _ = form.evaluate(form.values(params)[:, None, None], form.rows(columns))
    return loss[0]


def gradient(form: Form, values: Floats, rows: Rows) -> tuple[Floats, Floats]:
    """Loss [K, n] and its derivatives by the natural parameters [K, n, p], for values [K, p]."""
    loss, parts = form.evaluate(values.T[:, :, None], rows)
    return loss, np.stack([np.broadcast_to(part, loss.shape) for part in parts], axis=-1)


def optimum(
    form: Form,
    params: Mapping[str, float],
    flops: float,
    given: Mapping[str, float] | None = None,
    cost: TokenCost = SIX_ND,
) -> tuple[float, float]:
    """The params and tokens that minimise the loss at `flops`; a token costs what `cost` says.

    `given` holds what else the form reads, such as unique_tokens. Closed form under C = 6 N D where there
    is one, else `numeric_optimum`. Raises CannotAnswer for a form that does not know params and tokens apart.
    """
    if not {"params", "tokens"} <= set(form.columns):
        raise CannotAnswer(f"{form.name} is a law of {', '.join(form.columns)}; it allocates no budget")
    if form.allocation is not None and cost.is_6nd:
        return form.allocation(form.values(params), flops)
    return numeric_optimum(form, params, flops, given, cost)


def numeric_optimum(
    form: Form,
    params: Mapping[str, float],
    flops: float,
    given: Mapping[str, float] | None = None,
    cost: TokenCost = SIX_ND,
) -> tuple[float, float]:
    """The lowest valley of the loss along the budget, by repeated grids over ln N and a last parabola.

    A valley, not the least value: farseer, for one, falls again at sizes that no token is left for.
    Raises CannotAnswer when there is none between `SIZES`.
    """
    low, high = (math.log(size) for size in SIZES)

    def losses(log_n: Floats) -> Floats:
        others = {name: np.full(len(log_n), value) for name, value in (given or {}).items()}
        sizes = np.exp(log_n)
        return predict(form, params, {"params": sizes, "tokens": flops / cost.per_token(sizes), **others})

    for points in (501, 51, 51):
        grid = np.linspace(low, high, points)
        found = losses(grid)
        valleys = 1 + np.flatnonzero((found[1:-1] <= found[:-2]) & (found[1:-1] < found[2:]))
        if not len(valleys):
            raise CannotAnswer(f"{form.name} has no compute-optimal size at {flops:g} FLOPs")
        best = int(valleys[np.argmin(found[valleys])])
        low, high = grid[best - 1], grid[best + 1]
    left, middle, right = (float(x) for x in losses(grid[best - 1 : best + 2]))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend * (grid[1] - grid[0]) if bend > 0 else 0.0
    size = math.exp(float(grid[best]) + shift)
    return size, flops / float(cost.per_token(np.array([size]))[0])
