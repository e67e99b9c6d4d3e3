"""The fitting procedure of Hoffmann et al. 2203.15556, as Besiroglu et al. 2404.10102 describe it.

4500 L-BFGS-B starts on the summed Huber loss (1e-3) of ln L written as a log-sum-exp, then BFGS on 4000
resamples of the rows from the best point, tolerances as SciPy has them. Theta is (a, b, e, alpha, beta)
with A = exp(a) and so on, on rows u = ln N, v = ln D, y = ln L, all [n]. Here only to be timed against.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import Enum

import numpy as np

from harness.laws.expansion import Floats

DELTA = 1e-3
ALPHA_BETA, LOG_E, LOG_AB = np.arange(0, 2.1, 0.5), np.arange(-1, 1.1, 0.5), np.arange(0, 25.1, 5)
BOOTSTRAPS = 4000

Rows = tuple[Floats, Floats, Floats]
"""u, v and y, each [n]."""

Objective = Callable[[Floats], tuple[float, Floats]]
"""theta [5] -> the summed Huber loss and its gradient [5]."""


class Gradients(Enum):
    """Torch's autograd in double precision, as one would write it today (a fifth to an eighth of the time
    of the NumPy autograd that the replication used, measured), and the formulas by hand, without a tape."""

    autograd = "autograd (torch)"
    analytic = "analytic (NumPy)"


def grid() -> Floats:
    """Every starting theta, [4500, 5]."""
    exponents = itertools.product(LOG_AB, LOG_AB, LOG_E, ALPHA_BETA, ALPHA_BETA)
    return np.array(list(exponents), dtype=float)


def build_objective(gradients: Gradients, u: Floats, v: Floats, y: Floats) -> Objective:
    match gradients:
        case Gradients.autograd:
            return autograd_objective(u, v, y)
        case Gradients.analytic:
            return analytic_objective(u, v, y)


def autograd_objective(u: Floats, v: Floats, y: Floats) -> Objective:
    """The terms as one product [3, n, 5] @ [5]: a third faster than five scalars that broadcast."""
    import torch
    from torch.nn.functional import huber_loss

    one, zero = np.ones_like(u), np.zeros_like(u)
    rows = [(one, zero, zero, -u, zero), (zero, one, zero, zero, -v), (zero, zero, one, zero, zero)]
    design = torch.from_numpy(np.stack([np.stack(columns, axis=-1) for columns in rows]))
    target = torch.from_numpy(y)

    def objective(theta: Floats) -> tuple[float, Floats]:
        at = torch.tensor(theta, requires_grad=True)
        log_loss = torch.logsumexp(design @ at, dim=0)
        value = huber_loss(log_loss, target, reduction="sum", delta=DELTA)
        (gradient,) = torch.autograd.grad(value, at)
        return value.item(), gradient.numpy()

    return objective


def analytic_objective(u: Floats, v: Floats, y: Floats) -> Objective:
    def objective(theta: Floats) -> tuple[float, Floats]:
        a, b, e, alpha, beta = theta
        size, data = a - alpha * u, b - beta * v
        top = np.maximum(np.maximum(size, data), e)
        size, data, floor = np.exp(size - top), np.exp(data - top), np.exp(e - top)
        total = size + data + floor
        residual = top + np.log(total) - y
        score = np.clip(residual, -DELTA, DELTA)
        size, data, floor = (score / total * term for term in (size, data, floor))
        gradient = np.array([size.sum(), data.sum(), floor.sum(), -size @ u, -data @ v])
        return float(score @ (residual - 0.5 * score)), gradient

    return objective


def descend(objective: Objective, start: Floats) -> tuple[Floats, float]:
    """Where L-BFGS-B arrives from one start, and the objective there."""
    from scipy.optimize import minimize

    found = minimize(objective, start, jac=True, method="L-BFGS-B")
    return found.x, float(found.fun)


def refit(gradients: Gradients, rows: Rows, counts: Floats, start: Floats) -> Floats:
    """Theta [5] by BFGS on one resample; `counts` [n] says how often each row was drawn."""
    from scipy.optimize import minimize

    objective = build_objective(gradients, *(np.repeat(x, counts.astype(int)) for x in rows))
    return minimize(objective, start, jac=True, method="BFGS").x
