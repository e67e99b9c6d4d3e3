"""What a Chinchilla law says about a model's whole life: pre-training, then use, at one and the same loss.

Pre-training costs 6 N D and every token of use 2 N (approximations, in FLOPs). Whatever follows
pre-training is taken to cost in proportion to N, so that a smaller model trained for longer may be cheaper
over its life: Sardana et al. 2401.00448.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import CannotAnswer, WrongInput
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN

FLOPS_PER_PARAM_INFERENCE_TOKEN = 2.0
"""The forward pass alone."""


@dataclass(frozen=True)
class LossLaw:
    """L = E + A/N^alpha + B/D^beta, all five positive."""

    A: float
    B: float
    E: float
    alpha: float
    beta: float

    @classmethod
    def of(cls, params: Mapping[str, float]) -> LossLaw:
        """From the parameters of a Chinchilla fit. Raises WrongInput when they are not those of one."""
        names = ("A", "B", "E", "alpha", "beta")
        if set(params) != set(names) or not all(params[name] > 0 for name in names):
            raise WrongInput(f"a Chinchilla law has positive {', '.join(names)}, not {dict(params)}")
        return cls(**params)

    def loss(self, params: float, tokens: float) -> float:
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def tokens_for(self, loss: float, params: float) -> float:
        """D at which `params` reach `loss`. Raises CannotAnswer when no D is enough."""
        left = loss - self.E - self.A / params**self.alpha
        if left <= 0:
            raise CannotAnswer(f"{params:.4g} parameters do not reach a loss of {loss:.4g} on any data")
        return (self.B / left) ** (1 / self.beta)

    def optimal_tokens(self, params: float) -> float:
        """D for which `params` is compute-optimal: beta B D^-beta = alpha A N^-alpha."""
        return (self.beta * self.B * params**self.alpha / (self.alpha * self.A)) ** (1 / self.beta)

    def optimal_params(self, loss: float) -> float:
        """The size that reaches `loss` with the least pre-training compute. Raises CannotAnswer below E."""
        return (self.A * (1 + self.alpha / self.beta) / self.reducible(loss)) ** (1 / self.alpha)

    def reducible(self, loss: float) -> float:
        if loss <= self.E:
            raise CannotAnswer(f"a loss of {loss:.4g} is below the irreducible {self.E:.4g}")
        return loss - self.E


@dataclass(frozen=True)
class Life:
    """A model and its cost in FLOPs. `use_flops_per_param` is what everything after pre-training costs."""

    params: float
    tokens: float
    use_flops_per_param: float

    @property
    def training_flops(self) -> float:
        return FLOPS_PER_PARAM_TOKEN * self.params * self.tokens

    @property
    def flops(self) -> float:
        return self.training_flops + self.use_flops_per_param * self.params

    @property
    def ratio(self) -> float:
        """Lifetime compute over pre-training compute."""
        return self.flops / self.training_flops


def use_of(inference_tokens: float) -> float:
    """FLOPs per parameter of serving that many tokens, prompts and answers alike."""
    return FLOPS_PER_PARAM_INFERENCE_TOKEN * inference_tokens


def compute_optimal(law: LossLaw, loss: float, use_flops_per_param: float = 0.0) -> Life:
    """The model that reaches `loss` with the least pre-training compute, use not considered."""
    params = law.optimal_params(loss)
    return Life(params, law.tokens_for(loss, params), use_flops_per_param)


def lifetime_optimal(law: LossLaw, loss: float, use_flops_per_param: float) -> Life:
    """The model that reaches `loss` with the least lifetime compute (Sardana et al., equation 3).

    At the optimum r beta B D^-beta = alpha A N^-alpha with r the lifetime's ratio to pre-training. The
    difference of both sides falls with N, so the root between the smallest size that reaches the loss and
    the compute-optimal one is the only one. Raises CannotAnswer for a loss below E.
    """
    from scipy import optimize

    if use_flops_per_param == 0:
        return compute_optimal(law, loss)
    smallest = math.log(law.A / law.reducible(loss)) / law.alpha
    largest = math.log(law.optimal_params(loss))

    def life(log_n: float) -> Life:
        return Life(math.exp(log_n), law.tokens_for(loss, math.exp(log_n)), use_flops_per_param)

    def lack(log_n: float) -> float:
        at = life(log_n)
        size = math.log(law.alpha * law.A) - law.alpha * log_n
        return size - math.log(law.beta * law.B) + law.beta * math.log(at.tokens) - math.log(at.ratio)

    return life(optimize.brentq(lack, smallest + 1e-9 * (largest - smallest), largest, xtol=1e-14))


def saving(law: LossLaw, loss: float, life: Life) -> float:
    """The share of the compute-optimal model's lifetime compute that `life` saves at the same loss."""
    return 1 - life.flops / compute_optimal(law, loss, life.use_flops_per_param).flops


@dataclass(frozen=True)
class Overhead:
    """Data factor k_D and the relative rise of pre-training compute k_N k_D - 1."""

    data_factor: float
    compute: float


def shrink(law: LossLaw, size_factor: float) -> Overhead:
    """What a model k_N times the compute-optimal size needs to reach the same loss, at any budget.

    k_D = (1 - (k_N^-alpha - 1) beta/alpha)^(-1/beta) (de Vries 2023, 'Go smol or go home'; the amplitudes
    and G of the original cancel). Raises CannotAnswer when no data are enough.
    """
    if not size_factor > 0:
        raise WrongInput(f"the size factor must be positive, not {size_factor}")
    left = 1 - (size_factor**-law.alpha - 1) * law.beta / law.alpha
    if left <= 0:
        raise CannotAnswer(f"a model {size_factor:g} times the optimal size never reaches that loss")
    data_factor = left ** (-1 / law.beta)
    return Overhead(data_factor, size_factor * data_factor - 1)


def overtraining(law: LossLaw, ratio: float) -> float:
    """Tokens over the compute-optimal tokens of the same size when lifetime compute is `ratio` times that
    of pre-training: ratio^(1/beta), whatever the size, from the condition in `lifetime_optimal`."""
    if ratio < 1:
        raise WrongInput(f"lifetime compute is at least that of pre-training; its ratio is not {ratio}")
    return ratio ** (1 / law.beta)


def implied_ratio(law: LossLaw, factor: float) -> float:
    """The lifetime ratio for which training on `factor` times the compute-optimal tokens is right."""
    if factor < 1:
        raise WrongInput(f"the factor over compute-optimal tokens must be at least 1, not {factor}")
    return factor**law.beta


def planned(law: LossLaw, loss: float, ratio: float, use_flops_per_param: float) -> Life:
    """The model of `loss` chosen as if the lifetime ratio were `ratio`, with the use it then really gets.

    A N^-alpha + B D^-beta with r beta B D^-beta = alpha A N^-alpha leaves one N.
    """
    share = 1 + law.alpha / (law.beta * ratio)
    params = (law.A * share / law.reducible(loss)) ** (1 / law.alpha)
    return Life(params, law.tokens_for(loss, params), use_flops_per_param)


def regret(law: LossLaw, loss: float, ratio: float, use_flops_per_param: float) -> float:
    """How much more lifetime compute the model planned for `ratio` costs than the best, as a share.

    Spending equal thirds on pre-training, RL and inference is ratio 3.
    """
    best = lifetime_optimal(law, loss, use_flops_per_param)
    return planned(law, loss, ratio, use_flops_per_param).flops / best.flops - 1
