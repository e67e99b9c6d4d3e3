"""What the Newton method sees of a law: a response over rows, to second order, in coordinates theta.

A batch of K parameter vectors is theta [K, p]; a response over n rows is [K, n]. Coordinates belong to the
surface: positive parameters are usually held as logarithms, and amplitudes may be centred on the rows.
"""

from __future__ import annotations

from typing import Protocol

from harness.laws.expansion import Expansion, Target
from harness.laws.expansion import Flags as Flags
from harness.laws.expansion import Floats as Floats

FLOPS_PER_PARAM_TOKEN = 6.0
"""The approximation C = 6 N D of Kaplan et al. 2001.08361: attention scores and embeddings left out."""


class Surface(Protocol):
    """A law on given rows; the response is ln L unless the fit asks for another."""

    def response(self, theta: Floats) -> Floats:
        """[K, n]"""
        ...

    def gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """The response [K, n] and its gradient [K, n, p]."""
        ...

    def expand(self, theta: Floats, target: Target) -> Expansion:
        """The summed Huber loss against `target` to second order; see `laws.expansion`."""
        ...

    def to_values(self, theta: Floats) -> Floats:
        """Natural parameters of theta, both [K, p]."""
        ...

    def to_theta(self, values: Floats) -> Floats:
        """Theta of natural parameters, both [K, p]."""
        ...

    def bounds(self, smallest: float) -> tuple[Floats, Floats]:
        """Lower and upper bounds of theta [p]; `smallest` is the smallest observed loss."""
        ...
