"""How published tables count, and what the exponent of the compute-optimal size becomes under another count.

Kaplan et al. 2001.08361 count without embeddings and found N* growing as C^.73, Hoffmann et al. 2203.15556
count all and found C^.50. Pearce & Song 2406.12907 show that one surface says both: in a family of models
N_total = N + gamma N^(1/3), N without embeddings, and at small sizes the second term rules.
"""

from __future__ import annotations

import math

import numpy as np

from harness.errors import WrongInput
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats

GAMMA = 47491.0
"""Pearce & Song's, for the models of Hoffmann et al. and a vocabulary of 32,000. The median of those models
is 57,000: 47,491 goes with the exponent .34 and was kept at 1/3. Measure a family with `fit_gamma`."""


def fit_gamma(non_embedding: Floats, total: Floats) -> float:
    """gamma of a family [n], the median over its models. Raises WrongInput when a total is the smaller."""
    if not (total > non_embedding).all():
        raise WrongInput("params_total must exceed params_non_embedding in every model")
    return float(np.median((total - non_embedding) / np.cbrt(non_embedding)))


def total_params(non_embedding: Floats, gamma: float = GAMMA) -> Floats:
    """N + gamma N^(1/3)."""
    return np.asarray(non_embedding + gamma * np.cbrt(non_embedding))


def non_embedding_params(total: Floats, gamma: float = GAMMA) -> Floats:
    """The one N > 0 with N + gamma N^(1/3) = `total`.

    t = N^(1/3) is the real root of t^3 + gamma t = total; the hyperbolic form of it cancels nowhere.
    """
    unit = math.sqrt(gamma / 3)
    return np.asarray((2 * unit * np.sinh(np.arcsinh(total / (2 * unit**3)) / 3)) ** 3)


def optimal_flops(
    non_embedding: Floats, a: float, b: float, alpha: float, beta: float, gamma: float = GAMMA
) -> Floats:
    """The budget 6 N D, N without embeddings, at which these sizes are optimal [n] (2406.12907).

    The surface E + A/N_total^alpha + B/D^beta is minimised over N at fixed N D.
    """
    n, root = np.asarray(non_embedding), np.cbrt(non_embedding)
    scale = (beta * b / (alpha * a)) ** (1 / beta)
    tokens = (n + gamma / 3 * root) ** (-1 / beta) * (n + gamma * root) ** ((1 + alpha) / beta) * scale
    return np.asarray(FLOPS_PER_PARAM_TOKEN * n * tokens)


def local_exponent(non_embedding: Floats, alpha: float, beta: float, gamma: float = GAMMA) -> Floats:
    """d ln N* / d ln C without embeddings, where N* is `non_embedding`.

    From beta/(alpha/3 + beta) at the smallest sizes to beta/(alpha + beta) at the largest, and in between
    above both.
    """
    square = np.cbrt(np.asarray(non_embedding)) ** 2
    inner = (square + gamma / 9) / (square + gamma / 3)
    outer = (square + gamma / 3) / (square + gamma)
    return np.asarray(1 / (1 - inner / beta + (1 + alpha) * outer / beta))


def exponent_without_embeddings(
    alpha: float, beta: float, sizes: tuple[float, float], gamma: float = GAMMA
) -> float:
    """The exponent a found between two sizes (without embeddings) by who counts without embeddings.

    Who counts all parameters finds beta/(alpha + beta) at every size.
    """
    low, high = optimal_flops(np.array(sizes), 1.0, 1.0, alpha, beta, gamma)
    return math.log(sizes[1] / sizes[0]) / math.log(high / low)


def published_params(vocab: int, width: int, depth: int, mlp_hidden: int, relative_positions: bool) -> int:
    """N of a GPT-2 shape, tied embeddings, every bias and norm, no table of positions.

    With `relative_positions`, a projection and two biases a layer, it is the N of Hoffmann et al. 2203.15556.
    """
    attention = 4 * width**2 + 4 * width
    mlp = 2 * width * mlp_hidden + mlp_hidden + width
    norms = 4 * width
    positions = width**2 + 2 * width if relative_positions else 0
    return vocab * width + depth * (attention + positions + mlp + norms) + 2 * width


def hoffmann_flops_per_token(context: int, width: int, heads: int, depth: int, mlp_hidden: int) -> int:
    """Training FLOPs per token of 2203.15556, appendix F, without embeddings and logits.

    Attention is counted over the full square, its softmax at 3 a score. Their table A4, which sets C beside
    6ND, comes out so; the appendix also lists embeddings and logits, with which it does not.
    """
    matrices = 8 * width**2 + 4 * width * mlp_hidden
    scores = 4 * context * width + 3 * heads * context
    return 3 * depth * (matrices + scores)
