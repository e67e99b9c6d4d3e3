"""A transformer as numbers: what it holds and what a token costs. No torch.

Symbols: V vocabulary, T context, W width, H query heads, K key/value heads, d head dimension,
F MLP hidden size, L depth.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import WrongInput

FORWARD_AND_BACKWARD = 3
"""The backward pass of a matrix product is two products of the same size (activations and weights)."""


@dataclass(kw_only=True)
class ModelConfig:
    """One rung of a ladder. The vocabulary comes from the tokenizer; see `build_shape`."""

    name: str
    width: int
    depth: int
    n_heads: int
    head_dim: int
    mlp_hidden: int
    n_kv_heads: int | None = None
    tied_embeddings: bool = True
    rope_base: float = 10000.0

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "._-" for c in self.name) or self.name[0] == ".":
            raise ValueError(f"model.name={self.name!r} names folders: use letters, digits, . _ -")
        for field in ("width", "depth", "n_heads", "head_dim", "mlp_hidden"):
            if getattr(self, field) < 1:
                raise ValueError(f"model.{field} must be at least 1, not {getattr(self, field)}")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim must be even for rotary positions, not {self.head_dim}")
        if self.n_kv_heads is not None and (self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads):
            raise ValueError(f"model.n_kv_heads={self.n_kv_heads} must divide model.n_heads={self.n_heads}")


@dataclass(frozen=True)
class ParamCount:
    """Parameters by component. `head` is 0 when the head reuses the embedding matrix."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.mlp + self.norm + self.head

    @property
    def non_embedding(self) -> int:
        """Everything but the embedding and head matrices (Kaplan's N)."""
        return self.attention + self.mlp + self.norm

    @property
    def body_and_head(self) -> int:
        """What a token is multiplied with: one vocabulary matrix is the head, tied or not."""
        return self.non_embedding + (self.head or self.embedding)


@dataclass(frozen=True)
class TokenFlops:
    """Forward FLOPs of one token, averaged over the context, by component.

    A multiply-add is 2 FLOPs. Matrix products only: norms, rotary positions, softmax, residual sums and
    the embedding look-up are left out. `scores` (queries on keys, weights on values) counts the causal
    half exactly: position t attends to t + 1 keys, (T + 1) / 2 on average. Nothing is counted for
    recomputation.
    """

    attention: float
    scores: float
    mlp: float
    head: float

    @property
    def forward(self) -> float:
        return self.attention + self.scores + self.mlp + self.head

    @property
    def training(self) -> float:
        """Forward and backward."""
        return FORWARD_AND_BACKWARD * self.forward


@dataclass(frozen=True)
class ModelShape:
    """A fully determined architecture."""

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

    @property
    def params(self) -> ParamCount:
        matrix = self.vocab_size * self.width
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return ParamCount(
            embedding=matrix,
            attention=self.depth * self.width * (2 * queries + 2 * keys),
            mlp=self.depth * 3 * self.width * self.mlp_hidden,
            norm=self.depth * (2 * self.width + 2 * self.head_dim) + self.width,
            head=0 if self.tied_embeddings else matrix,
        )

    @property
    def flops_per_token(self) -> TokenFlops:
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return TokenFlops(
            attention=2 * self.depth * self.width * (2 * queries + 2 * keys),
            scores=2 * self.depth * 2 * queries * (self.context + 1) / 2,
            mlp=2 * self.depth * 3 * self.width * self.mlp_hidden,
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
    return ModelShape(
        vocab_size=vocab_size,
        context=context,
        width=model.width,
        depth=model.depth,
        n_heads=model.n_heads,
        n_kv_heads=model.n_kv_heads or model.n_heads,
        head_dim=model.head_dim,
        mlp_hidden=model.mlp_hidden,
        tied_embeddings=model.tied_embeddings,
        rope_base=model.rope_base,
    )
