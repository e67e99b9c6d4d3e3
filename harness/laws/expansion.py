"""The summed Huber loss of many replicates with its gradient and Hessian, in one pass over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Expansion:
    """The objective [K] at theta [K, p] to second order: gradient [K, p] and Hessian [K, p, p].

    `scale` [K, p] is the diagonal of the majoriser, the parabola that touches the Huber loss (iteratively
    reweighted least squares): the natural unit of each parameter.
    """

    theta: Floats
    value: Floats
    gradient: Floats
    hessian: Floats
    scale: Floats

    def rows(self, which: Flags) -> Expansion:
        return Expansion(*(field[which] for field in vars(self).values()))

    def or_better(self, other: Expansion, better: Flags) -> Expansion:
        """`other` where it is better, replicate by replicate."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Expansion(*(np.where(better.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs))


def concatenated(parts: Sequence[Expansion]) -> Expansion:
    fields = zip(*(vars(part).values() for part in parts), strict=True)
    return Expansion(*(np.concatenate(field) for field in fields))


@dataclass(frozen=True)
class Target:
    """What the response is compared with: `y` and `weights` [1, n] or [K, n]; least squares for an
    infinite `delta`."""

    y: Floats
    weights: Floats
    delta: float

    def slopes(self, response: Floats) -> Slopes:
        residual = response - self.y
        size = np.abs(residual)
        clipped = np.minimum(size, self.delta)
        touch = self.weights * (clipped / np.maximum(size, 1e-300))
        return Slopes(
            value=np.einsum("kn,kn->k", self.weights * clipped, size - 0.5 * clipped),
            score=touch * residual,
            bend=self.weights * (size <= self.delta),
            touch=touch,
        )


@dataclass(frozen=True)
class Slopes:
    """The weighted Huber loss [K] and, by row [K, n], its first and second derivative by ln L, and the
    second derivative of the parabola that touches it."""

    value: Floats
    score: Floats
    bend: Floats
    touch: Floats


@dataclass(frozen=True)
class Term:
    """One summand of L, whose logarithm is theta[columns] @ design, [c, n]."""

    columns: tuple[int, ...]
    design: Floats


def expand_sum(terms: Sequence[Term], theta: Floats, target: Target) -> Expansion:
    """For L a sum of terms whose logarithms are linear in theta, so that ln L is their log-sum-exp.

    With shares p_i = term_i / L and designs x_i, ln L has the gradient g = sum p_i x_i and the second
    derivative sum p_i x_i x_i' - g g'. Everything is then a product [K, n] @ [n, .] with products of
    designs; nothing of shape [K, n, p] is made.
    """
    shares = [np.exp(theta[:, term.columns] @ term.design) for term in terms]
    loss = np.sum(shares, axis=0)
    at = target.slopes(np.log(loss))
    for share in shares:
        share /= loss
    count = theta.shape[1]
    gradient, scale = np.zeros_like(theta), np.zeros_like(theta)
    hessian = np.zeros((len(theta), count, count))
    outer = at.bend - at.score
    for i, (term, share) in enumerate(zip(terms, shares, strict=True)):
        rows, pull = list(term.columns), at.score * share
        gradient[:, rows] += pull @ term.design.T
        scale[:, rows] += (at.touch * share * share) @ (term.design**2).T
        weighted = outer * share
        for j in range(i, len(terms)):
            weights = weighted * shares[j] + (pull if i == j else 0.0)
            columns = list(terms[j].columns)
            products = (term.design[:, None] * terms[j].design).reshape(-1, term.design.shape[1])
            block = (weights @ products.T).reshape(-1, len(rows), len(columns))
            hessian[np.ix_(range(len(theta)), rows, columns)] += block
            if i != j:
                hessian[np.ix_(range(len(theta)), columns, rows)] += np.swapaxes(block, 1, 2)
    return Expansion(theta, at.value, gradient, hessian, scale)


class Curved(Protocol):
    """A response with its derivatives."""

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """The response [K, n] and its gradient [K, n, p]."""
        ...

    def curvature(self, theta: Floats, scores: Floats) -> Floats:
        """The score-weighted sum over rows of the second derivatives of the response, [K, p, p]."""
        ...


def expand_curved(surface: Curved, theta: Floats, target: Target) -> Expansion:
    """For any surface, from its gradient and its score-weighted second derivatives."""
    response, jacobian = surface.gradient(theta)
    at = target.slopes(response)
    return Expansion(
        theta=theta,
        value=at.value,
        gradient=np.einsum("kn,knp->kp", at.score, jacobian),
        hessian=weighted_outer(jacobian, at.bend) + surface.curvature(theta, at.score),
        scale=np.einsum("kn,knp->kp", at.touch, jacobian**2),
    )


def weighted_outer(gradient: Floats, weights: Floats) -> Floats:
    """Sum over rows of weight times the outer product of the gradient, [K, p, p]."""
    product: Floats = np.swapaxes(gradient * weights[..., None], 1, 2) @ gradient
    return product
