"""What the exponent of the compute-optimal size becomes when parameters are counted another way.

Kaplan et al. 2001.08361 count without embeddings and found N* growing as C^.73, Hoffmann et al. 2203.15556
count all and found C^.50. Pearce & Song 2406.12907 show that one surface says both: in a family of models
N_total = N + gamma N^(1/3) (N without embeddings), and at small sizes the second term rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

GAMMA = 47491.0
"""Pearce & Song's fit to the models of Hoffmann et al., vocabulary 32,000."""


def total_params(non_embedding: Floats, gamma: float = GAMMA) -> Floats:
    """N + gamma N^(1/3)."""
    return non_embedding + gamma * np.cbrt(non_embedding)


def non_embedding_params(total: Floats, gamma: float = GAMMA) -> Floats:
    """The one N > 0 with N + gamma N^(1/3) = `total`: in t = N^(1/3), t^3 + gamma t - total = 0.

    Cardano's real root, written with the hyperbolic sine so that nothing cancels.
    """
    unit = math.sqrt(gamma / 3)
    return np.asarray((2 * unit * np.sinh(np.arcsinh(total / (2 * unit**3)) / 3)) ** 3)


@dataclass(frozen=True)
class Frontier:
    """Compute-optimal models of one surface under both countings, [n] each.

    `flops` is 6 N_total D, `flops_non_embedding` 6 N D; `tokens` D*; `loss` in the unit of E.
    """

    non_embedding: Floats
    total: Floats
    tokens: Floats
    flops: Floats
    flops_non_embedding: Floats
    loss: Floats

    @property
    def exponent_total(self) -> float:
        """a of N_total in C_total."""
        return slope(self.flops, self.total)

    @property
    def exponent_non_embedding(self) -> float:
        """a of N in C, both without embeddings."""
        return slope(self.flops_non_embedding, self.non_embedding)

    @property
    def exponent_total_by_non_embedding_flops(self) -> float:
        return slope(self.flops_non_embedding, self.total)

    def reducible_slope(self, floor: float = 0.0) -> float:
        """Of ln(L - floor) in ln C without embeddings."""
        return slope(self.flops_non_embedding, self.loss - floor)


def slope(x: Floats, y: Floats) -> float:
    """Of ln y on ln x by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
