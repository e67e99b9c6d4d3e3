"""What a fit minimises: a response of the loss, its Huber objective, and any form as a surface for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from harness.laws.config import LawConfig, LossFunction
from harness.laws.expansion import Expansion, Target, expand_curved
from harness.laws.forms.form import Form, Rows, gradient
from harness.laws.surfaces import Flags, Floats

ELEMENTS_AT_ONCE = 1 << 14
"""Shifted replicates times rows of one batch of second differences; a single fit is 2.5 times as fast as with
one parameter a call, a bootstrap 5 % slower."""

STEP = 1e-4
"""Of the central differences of the analytic gradient; the objective itself needs no second derivative."""


class Response(Enum):
    """What the residual is taken of: ln L, L itself, or ln(1 + L)."""

    log = "ln L"
    loss = "L"
    log1p = "ln(1 + L)"


@dataclass(frozen=True)
class Objective:
    """The summed Huber loss of residuals of `response`; least squares for an infinite `delta`.

    `fixed` holds parameters at given natural values; `weak_prior` adds the form's own, weighed against
    the data by the plain fit's noise, or by a standard deviation of `quietest` in the response where the
    rows seem quieter: a law that passes through a few rows says nothing of their noise.
    """

    response: Response = Response.log
    delta: float = 1e-3
    fixed: Mapping[str, float] = field(default_factory=dict)
    weak_prior: bool = False
    quietest: float = 0.0


RESPONSES = {
    LossFunction.least_squares_loss: Response.loss,
    LossFunction.least_squares_log1p: Response.log1p,
}


def objective_of(config: LawConfig) -> Objective:
    """What `config` asks to minimise."""
    response = RESPONSES.get(config.loss, Response.log)
    return Objective(response=response, delta=config.effective_delta, weak_prior=config.weak_prior)


def respond(response: Response, loss: Floats) -> tuple[Floats, Floats]:
    """The response and its derivative by the loss."""
    match response:
        case Response.log:
            return np.log(loss), 1 / loss
        case Response.loss:
            return loss, np.ones_like(loss)
        case Response.log1p:
            return np.log1p(loss), 1 / (1 + loss)


@dataclass(frozen=True)
class FormSurface:
    """Any form on given rows. Theta is the logarithm of the logarithmic parameters; the second derivatives
    are differences of the gradient."""

    form: Form
    rows: Rows
    kind: Response

    def to_values(self, theta: Floats) -> Floats:
        return np.where(self._logs, np.exp(np.where(self._logs, theta, 0.0)), theta)

    def to_theta(self, values: Floats) -> Floats:
        return np.where(self._logs, np.log(np.where(self._logs, values, 1.0)), values)

    def bounds(self, smallest: float) -> tuple[Floats, Floats]:
        low, high = np.array([(p.low, p.high) for p in self.form.parameters]).T
        scale = np.array([smallest if p.floor else 1.0 for p in self.form.parameters])
        return self.to_theta(low * scale), self.to_theta(high * scale)

    def response(self, theta: Floats) -> Floats:
        return respond(self.kind, self.form.losses(self.to_values(theta), self.rows))[0]

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        values = self.to_values(theta)
        loss, jacobian = gradient(self.form, values, self.rows)
        response, slope = respond(self.kind, loss)
        return response, jacobian * np.where(self._logs, values, 1.0)[:, None, :] * slope[:, :, None]

    def expand(self, theta: Floats, target: Target) -> Expansion:
        return expand_curved(self, theta, target)

    def curvature(self, theta: Floats, scores: Floats) -> Floats:
        """The score-weighted sum over rows of the second derivatives of the response, [K, p, p]."""
        if not self.form.second_derivatives:
            return np.zeros((len(theta), theta.shape[1], theta.shape[1]))

        size = max(1, ELEMENTS_AT_ONCE // (2 * theta.shape[1] * scores.shape[1]))
        blocks = [slice(at, at + size) for at in range(0, len(theta), size)]
        return np.concatenate([self._score_hessian(theta[b], scores[b]) for b in blocks])

    def _score_hessian(self, theta: Floats, scores: Floats) -> Floats:
        """[K, p, p], every shifted theta in one batch: on a few rows each call is mostly overhead."""
        count, p = theta.shape
        step = STEP * np.maximum(1.0, np.abs(theta))
        moves = step[:, :, None] * np.eye(p)
        shifted = np.stack([theta[:, None] + moves, theta[:, None] - moves])
        jacobian = self.gradient(shifted.reshape(-1, p))[1].reshape(2, count, p, -1, p)
        ahead, behind = np.einsum("kn,skinp->skip", scores, jacobian)
        total = (ahead - behind) / 2 / step[:, :, None]
        return np.asarray(0.5 * (total + np.swapaxes(total, 1, 2)))

    @property
    def _logs(self) -> Flags:
        return np.array([parameter.log for parameter in self.form.parameters])
