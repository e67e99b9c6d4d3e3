"""What a scaling-law form is: names, columns, value with gradient, starts, optimum at a budget.

A form is written in its natural parameters. `evaluate` takes them along the first axis, shaped [p, K, 1]
for K parameter vectors, and columns of n rows, so that plain arithmetic broadcasts to [K, n].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.errors import WrongInput
from harness.laws.surfaces import Floats, Surface

Rows = Mapping[str, Floats]
"""Columns by name: params, tokens, unique_tokens (counts), flops (FLOPs), each [n] or [K, n]."""

Evaluate = Callable[[Floats, Rows], tuple[Floats, Sequence[Floats]]]
"""(values [p, K, 1], rows) -> loss [K, n] and its derivative by each parameter, broadcastable to [K, n]."""

Starts = Callable[[Rows, Floats], Floats]
"""(rows, loss [n]) -> starting values [k, p]; deterministic."""

Allocation = Callable[[Floats, float], Floats]
"""(values [p, K], flops) -> ln of the params [K] that minimise the loss under C = 6 N D."""

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
    """One law.

    What a form may leave out:
    `allocation`, its closed-form optimum: without, the optimum is searched.
    `surface`, second derivatives in closed form on given rows: without, they are differences of the
    gradient. `second_derivatives=False` is for a form too dear for that: the fit is then Gauss-Newton.
    `rates`, how fast the loss falls with each column at most, by name of the parameter: a learning curve
    faster than 1/x is an artefact.
    `weak_prior`, mean and standard deviation of some parameters.
    `raced`, how many starts run a few iterations before the best go on.
    Columns must be positive but for the `signed` ones, and so must what is fitted unless it is a
    `signed_response`, of which no logarithm is taken: a reward, or an accuracy of nothing.
    """

    name: str
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    evaluate: Evaluate
    starts: Starts
    allocation: Allocation | None = None
    surface: Callable[[Rows], Surface] | None = None
    second_derivatives: bool = True
    rates: Callable[[Mapping[str, float]], Mapping[str, float]] | None = None
    weak_prior: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    keep: Keep = every_row
    signed: tuple[str, ...] = ()
    signed_response: bool = False
    raced: int = 24

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def floor(self) -> int | None:
        """Where the irreducible loss stands among the parameters."""
        return next((i for i, parameter in enumerate(self.parameters) if parameter.floor), None)

    @property
    def allocates(self) -> bool:
        """Whether it knows params and tokens apart, and so has an optimum at a budget."""
        return {"params", "tokens"} <= set(self.columns)

    def values(self, params: Mapping[str, float]) -> Floats:
        """[p] in the order of `parameters`. Raises WrongInput for a missing or unknown name."""
        if set(params) != set(self.names):
            raise WrongInput(f"{self.name} has the parameters {', '.join(self.names)}, not {sorted(params)}")
        return np.array([params[name] for name in self.names], dtype=float)

    def named(self, values: Floats) -> dict[str, float]:
        """Parameters by name from one vector [p]."""
        return dict(zip(self.names, values.tolist(), strict=True))

    def rows(self, given: Mapping[str, object]) -> dict[str, Floats]:
        """The columns this form reads, as arrays. Raises WrongInput when one is missing."""
        missing = [name for name in self.columns if given.get(name) is None]
        if missing:
            raise WrongInput(f"{self.name} needs the column {', '.join(missing)}")
        return {name: np.atleast_1d(np.asarray(given[name], dtype=float)) for name in self.columns}

    def losses(self, values: Floats, rows: Rows) -> Floats:
        """The loss [K, n] for values [K, p]."""
        return self.evaluate(values.T[:, :, None], rows)[0]


def predict(form: Form, params: Mapping[str, float], columns: Mapping[str, object]) -> Floats:
    """The loss [n], in the unit the parameters were fitted in."""
    return form.losses(form.values(params)[None], form.rows(columns))[0]


def gradient(form: Form, values: Floats, rows: Rows) -> tuple[Floats, Floats]:
    """Loss [K, n] and its derivatives by the natural parameters [K, n, p], for values [K, p]."""
    loss, parts = form.evaluate(values.T[:, :, None], rows)
    return loss, np.stack([np.broadcast_to(part, loss.shape) for part in parts], axis=-1)
