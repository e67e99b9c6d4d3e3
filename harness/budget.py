"""From a compute budget to a horizon: how many tokens, how many optimizer steps, at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import WrongInput
from harness.shape import ModelShape

MOST_STEPS = 100_000_000
"""Of a run: a day and more of the smallest model, so more is taken for a slip."""


@dataclass(kw_only=True)
class HorizonConfig:
    """How long a run trains: exactly one of `tokens`, `flops`, `tokens_per_param`.

    `tokens_per_param` is per non-embedding parameter. `batch_tokens` is the global batch, whatever the
    number of devices or micro-batches.
    """

    batch_tokens: int
    tokens: int | None = None
    flops: float | None = None
    tokens_per_param: float | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("tokens", "flops", "tokens_per_param") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(
                f"horizon: give one of tokens, flops, tokens_per_param, not {' and '.join(given)}"
            )
        for name in ("batch_tokens", *given):
            if getattr(self, name) <= 0:
                raise ValueError(f"horizon.{name} must be positive, not {getattr(self, name)}")


@dataclass(frozen=True)
class Horizon:
    """A whole number of optimizer steps."""

    steps: int
    batch_sequences: int
    context: int

    @property
    def batch_tokens(self) -> int:
        return self.batch_sequences * self.context

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_tokens


def build_horizon(config: HorizonConfig, shape: ModelShape) -> Horizon:
    """Rounds to the nearest whole step; the batch must hold whole sequences.

    Raises WrongInput when no horizon is given, the batch is not a multiple of the context, or the horizon is
    more than MOST_STEPS or less than half a step: one step would be many times what was asked for.
    """
    if config.batch_tokens % shape.context:
        raise WrongInput(
            f"horizon.batch_tokens={config.batch_tokens} is not a multiple of the context "
            f"({shape.context} tokens); use {round_to(config.batch_tokens, shape.context)}"
        )
    tokens = wanted_tokens(config, shape)
    if tokens / config.batch_tokens > MOST_STEPS:
        raise WrongInput(
            f"the horizon is {tokens:.3g} tokens, {tokens / config.batch_tokens:.3g} steps; {MOST_STEPS:,} "
            f"are the most: train for less, or raise horizon.batch_tokens={config.batch_tokens}"
        )
    steps = round(tokens / config.batch_tokens)
    if steps < 1:
        raise WrongInput(
            f"the horizon is {tokens:,.0f} tokens, less than half a step; train for more than "
            f"horizon.batch_tokens={config.batch_tokens}, or lower that"
        )
    return Horizon(
        steps=steps,
        batch_sequences=config.batch_tokens // shape.context,
        context=shape.context,
    )


def wanted_tokens(config: HorizonConfig, shape: ModelShape) -> float:
    """Tokens before rounding to whole steps."""
    if config.tokens is not None:
        return config.tokens
    if config.flops is not None:
        return config.flops / shape.flops_per_token.training
    if config.tokens_per_param is not None:
        return config.tokens_per_param * shape.params.non_embedding
    raise WrongInput("no horizon: set horizon.tokens, horizon.flops or horizon.tokens_per_param")


def round_to(value: float, multiple: int) -> int:
    """The nearest positive multiple."""
    return max(1, round(value / multiple)) * multiple
