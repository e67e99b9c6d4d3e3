"""A model as numbers: what it holds and what a token costs. No torch.

Symbols: V vocabulary, T context, W width, H query heads, K key/value heads, d head dimension,
F MLP hidden size, L depth, n size of a recurrent head's state.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from harness.errors import WrongInput
from harness.later import later

FORWARD_AND_BACKWARD = 3
"""The backward pass of a matrix product is two products of the same size (activations and weights)."""


CONVOLUTION = 4
"""Taps of the short convolution before a recurrent layer's state."""


class Mixer(Enum):
    """What carries information from one position to the next."""

    attention = "attention"
    recurrent = "recurrent"


@dataclass(kw_only=True)
class ModelConfig:
    """One rung of a ladder. The vocabulary comes from the tokenizer; see `build_shape`.

    `window` lets attention see that many positions, the query's own included, except in every
    `full_every`-th layer. `mixer=recurrent` puts a linear recurrence in place of attention, except in every
    `attention_every`-th layer. With `recurrence=r` a token passes the layers r times, except the first
    `prelude` and the last `coda` of them (both within `depth`).
    """

    name: str
    width: int
    depth: int
    n_heads: int
    head_dim: int
    mlp_hidden: int
    n_kv_heads: int | None = None
    tied_embeddings: bool = True
    rope_base: float = 10000.0
    window: int | None = later(None)
    full_every: int | None = later(None)
    mixer: Mixer = later(Mixer.attention)
    attention_every: int | None = later(None)
    state_size: int = later(16)
    recurrence: int = later(1)
    prelude: int = later(0)
    coda: int = later(0)

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "._-" for c in self.name) or self.name[0] == ".":
            raise ValueError(f"model.name={self.name!r} names folders: use letters, digits, . _ -")
        positive = ("width", "depth", "n_heads", "head_dim", "mlp_hidden", "state_size", "recurrence")
        for name in (*positive, "window"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"model.{name} must be at least 1, not {value}")
        if not self.rope_base > 0:
            raise ValueError(f"model.rope_base must be positive, not {self.rope_base}")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim must be even for rotary positions, not {self.head_dim}")
        if self.n_kv_heads is not None and (self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads):
            raise ValueError(f"model.n_kv_heads={self.n_kv_heads} must divide model.n_heads={self.n_heads}")
        self.refuse_impossible_layers()

    def refuse_impossible_layers(self) -> None:
        """Raises ValueError for layers that cannot be, or a setting that no layer would read."""
        recurrent = self.mixer is Mixer.recurrent
        for name, needs, given in (
            ("full_every", "model.window", self.window is not None),
            ("attention_every", "model.mixer=recurrent", recurrent),
        ):
            every = getattr(self, name)
            if every is not None and not given:
                raise ValueError(f"model.{name}={every} needs {needs}")
            if every is not None and not 2 <= every <= self.depth:
                raise ValueError(f"model.{name}={every} must lie between 2 and model.depth={self.depth}")
        if recurrent and self.window is not None and self.attention_every is None:
            raise ValueError("model.window bounds attention and no layer attends; add model.attention_every")
        if recurrent and self.full_every is not None:
            raise ValueError("model.full_every cannot go with model.attention_every: leave one of them out")
        if min(self.prelude, self.coda) < 0 or self.prelude + self.coda >= self.depth:
            raise ValueError(
                f"model.prelude={self.prelude} and model.coda={self.coda} must leave at least one of the "
                f"model.depth={self.depth} layers to repeat"
            )


@dataclass(frozen=True)
class ParamCount:
    """Parameters by component. `head` is 0 when the head reuses the embedding matrix."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    head: int
    recurrent: int = 0

    @property
    def total(self) -> int:
        return self.embedding + self.non_embedding + self.head

    @property
    def non_embedding(self) -> int:
        """Everything but the embedding and head matrices (Kaplan's N)."""
        return self.attention + self.recurrent + self.mlp + self.norm

    @property
    def body_and_head(self) -> int:
        """What a token is multiplied with: one vocabulary matrix is the head, tied or not."""
        return self.non_embedding + (self.head or self.embedding)


@dataclass(frozen=True)
class TokenFlops:
    """Forward FLOPs of one token, averaged over the context, by component.

    A multiply-add is 2 FLOPs. Matrix products only: norms, rotary positions, softmax, residual sums and
    the embedding look-up are left out. `scores` (queries on keys, weights on values) counts the causal
    half exactly: position t attends to t + 1 keys, (T + 1) / 2 on average, and in a window to no more than
    that holds. `recurrent` is the projections and the short convolution of the recurrent layers, `state`
    one outer product into each head's state and one product with it, as in the recurrence itself; a chunked
    form does more work. What a token passes r times is counted r times. Nothing is counted for
    recomputation.
    """

    attention: float
    scores: float
    mlp: float
    head: float
    recurrent: float = 0.0
    state: float = 0.0

    @property
    def forward(self) -> float:
        return self.attention + self.scores + self.recurrent + self.state + self.mlp + self.head

    @property
    def training(self) -> float:
        """Forward and backward."""
        return FORWARD_AND_BACKWARD * self.forward


@dataclass(frozen=True)
class Layer:
    """One layer: what mixes its positions, how many of them it sees (all without a window), and how often
    a token passes it."""

    mixer: Mixer
    window: int | None
    passes: int


@dataclass(frozen=True)
class ModelShape:
    """A fully determined architecture; the fields are those of `ModelConfig`."""

    vocab_size: int
    context: int
    width: int
    depth: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    mlp_hidden: int
    tied_embeddings: bool
    rope_base: float
    window: int | None = later(None)
    full_every: int | None = later(None)
    mixer: Mixer = later(Mixer.attention)
    attention_every: int | None = later(None)
    state_size: int = later(16)
    recurrence: int = later(1)
    prelude: int = later(0)
    coda: int = later(0)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(self.layer(index) for index in range(self.depth))

    def layer(self, index: int) -> Layer:
        attends = self.mixer is Mixer.attention or is_nth(self.attention_every, index)
        sees_all = not attends or is_nth(self.full_every, index)
        repeated = self.prelude <= index < self.depth - self.coda
        return Layer(
            mixer=Mixer.attention if attends else Mixer.recurrent,
            window=None if sees_all else self.window,
            passes=self.recurrence if repeated else 1,
        )

    @property
    def unrolled_depth(self) -> int:
        """Layers that a token passes, one counted as often as it is passed."""
        return sum(layer.passes for layer in self.layers)

    @property
    def attends(self) -> bool:
        """Whether any layer is attention."""
        return any(layer.mixer is Mixer.attention for layer in self.layers)

    @property
    def inner(self) -> int:
        """Size of all query heads, or of all recurrent heads, together."""
        return self.n_heads * self.head_dim

    @property
    def attention_matrices(self) -> int:
        """Entries of one layer's projections to queries, keys and values and back."""
        return self.width * (2 * self.inner + 2 * self.n_kv_heads * self.head_dim)

    @property
    def recurrent_sizes(self) -> tuple[int, int, int]:
        """Outputs of a recurrent layer's first projection: the gate, what is convolved, the step sizes."""
        return self.inner, self.inner + 2 * self.state_size, self.n_heads

    @property
    def recurrent_matrices(self) -> int:
        """Entries of one recurrent layer's two projections and its convolution."""
        projections = self.width * (sum(self.recurrent_sizes) + self.inner)
        return projections + CONVOLUTION * self.recurrent_sizes[1]

    @property
    def hidden_matrices(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every matrix between the embedding and the head, as stored."""
        attention = (self.inner + 2 * self.n_kv_heads * self.head_dim, self.width), (self.width, self.inner)
        recurrent = (sum(self.recurrent_sizes), self.width), (self.width, self.inner)
        mlp = (2 * self.mlp_hidden, self.width), (self.width, self.mlp_hidden)
        mixers = {Mixer.attention: attention, Mixer.recurrent: recurrent}
        return tuple(matrix for layer in self.layers for matrix in (*mixers[layer.mixer], *mlp))

    @property
    def params(self) -> ParamCount:
        vocabulary = self.vocab_size * self.width
        attends = sum(layer.mixer is Mixer.attention for layer in self.layers)
        recurs = self.depth - attends
        gains = attends * 2 * self.head_dim + recurs * self.inner
        return ParamCount(
            embedding=vocabulary,
            attention=attends * self.attention_matrices,
            recurrent=recurs * (self.recurrent_matrices + 3 * self.n_heads),
            mlp=self.depth * 3 * self.width * self.mlp_hidden,
            norm=self.depth * 2 * self.width + gains + self.width,
            head=0 if self.tied_embeddings else vocabulary,
        )

    @property
    def flops_per_token(self) -> TokenFlops:
        attention = [layer for layer in self.layers if layer.mixer is Mixer.attention]
        attends = sum(layer.passes for layer in attention)
        recurs = self.unrolled_depth - attends
        keys = sum((layer.passes * mean_visible(self.context, layer.window) for layer in attention), 0.0)
        return TokenFlops(
            attention=2 * attends * self.attention_matrices,
            scores=2 * 2 * self.inner * keys,
            recurrent=2 * recurs * self.recurrent_matrices,
            state=2 * 2 * recurs * self.inner * self.state_size,
            mlp=2 * self.unrolled_depth * 3 * self.width * self.mlp_hidden,
            head=2 * self.vocab_size * self.width,
        )

    def training_flops(self, tokens: int) -> float:
        """Exact training FLOPs of `tokens` tokens, attention and head included."""
        return self.flops_per_token.training * tokens


def build_shape(model: ModelConfig, vocab_size: int, context: int) -> ModelShape:
    """The architecture of `model` over a vocabulary of `vocab_size` tokens and `context` positions."""
    if context < 1:
        raise WrongInput(f"context={context} must be at least 1 token")
    if vocab_size < 2:
        raise WrongInput(f"a vocabulary of {vocab_size} tokens cannot be modelled; check the tokenizer")
    own = {f.name: getattr(model, f.name) for f in fields(ModelShape) if hasattr(model, f.name)}
    own["n_kv_heads"] = model.n_kv_heads or model.n_heads
    return ModelShape(vocab_size=vocab_size, context=context, **own)


def mean_visible(context: int, window: int | None) -> float:
    """Keys that a query sees, averaged over the context: the sum of min(t + 1, window) over its length."""
    seen = min(window or context, context)
    return seen - seen * (seen - 1) / (2 * context)


def is_nth(every: int | None, index: int) -> bool:
    """Whether a layer is the n-th, 2n-th, ... of a model; none is without `every`."""
    return every is not None and (index + 1) % every == 0
