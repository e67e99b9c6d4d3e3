"""The whole model, top-down: a decoder-only, pre-norm transformer, or a linear recurrence in place
of its attention.

B batch, T tokens, V vocabulary, W width, H query heads, K key/value heads, d head dimension,
F MLP hidden size, n state size, C channels, k taps. `harness.shape.ModelShape` counts every parameter and
matrix product below.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from harness.model.attention import Attend, norm_rotate_before
from harness.model.loss import LossOf, full
from harness.model.parametrization import Parametrization
from harness.model.scan import chunked
from harness.shape import CONVOLUTION, Layer, Mixer, ModelShape


class Transformer(nn.Module):
    """Tokens in, logits out. `attend` is chosen by `harness.model.attention.build_attention`, `loss` by
    `harness.model.loss.build_loss`. With `activation_checkpointing` a block keeps its input alone and is
    passed again on the way back (Chen et al. 2016, arXiv:1604.06174)."""

    def __init__(
        self, shape: ModelShape, attend: Attend, rules: Parametrization, loss: LossOf = full
    ) -> None:
        super().__init__()
        self.shape = shape
        self.rules = rules
        self.loss_of = loss
        self.activation_checkpointing = False
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.blocks = nn.ModuleList(build_block(shape, layer, attend, rules) for layer in shape.layers)
        self.norm = RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab_size, bias=False)
        if shape.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.cos_Td: Tensor
        self.sin_Td: Tensor
        cos_Td, sin_Td = rotary_tables(shape.context, shape.head_dim, shape.rope_base)
        self.register_buffer("cos_Td", cos_Td, persistent=False)
        self.register_buffer("sin_Td", sin_Td, persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V]; T may be at most the shape's context."""
        return self.head(self.hidden(tokens_BT))

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """What the head reads [B, T, W]."""
        length = tokens_BT.shape[1]
        if length > self.shape.context:
            raise ValueError(
                f"a sequence of {length} tokens is longer than the context of {self.shape.context}"
            )
        rotary = (self.cos_Td[:length], self.sin_Td[:length])
        x_BTW = self.embedding(tokens_BT)
        for block in self.unrolled():
            x_BTW = self.through(block, x_BTW, rotary)
        hidden_BTW = self.norm(x_BTW)
        if self.rules.readout != 1:  # scaling the input of the head is the cheapest way to scale logits
            hidden_BTW = hidden_BTW * self.rules.readout
        return hidden_BTW

    def through(self, block: nn.Module, x_BTW: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():  # no layer draws random numbers
            return checkpoint(block, x_BTW, rotary, use_reentrant=False, preserve_rng_state=False)
        return block(x_BTW, rotary)

    def unrolled(self) -> list[nn.Module]:
        """The blocks in the order a token passes them: those of the core, if there is one, several times,
        their output being their next input (Saunshi et al. 2025, arXiv:2502.17416)."""
        shape, blocks = self.shape, list(self.blocks)
        core = slice(shape.prelude, shape.depth - shape.coda)
        return blocks[: core.start] + shape.recurrence * blocks[core] + blocks[core.stop :]

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token, in float32 whatever the precision of the logits."""
        return self.loss_of(self.hidden(tokens_BT), self.head, targets_BT)


def build_block(shape: ModelShape, layer: Layer, attend: Attend, rules: Parametrization) -> nn.Module:
    match layer.mixer:
        case Mixer.attention:
            return Block(shape, layer, attend, rules)
        case Mixer.recurrent:
            return RecurrentBlock(shape, rules)


class Block(nn.Module):
    def __init__(self, shape: ModelShape, layer: Layer, attend: Attend, rules: Parametrization) -> None:
        super().__init__()
        self.residual = rules.residual
        self.attention_norm = RMSNorm(shape.width)
        self.attention = Attention(shape, attend, rules.attention, layer.window)
        self.mlp_norm = RMSNorm(shape.width)
        self.mlp = SwiGLU(shape)

    def forward(self, x_BTW: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x_BTW = x_BTW.add(self.attention(self.attention_norm(x_BTW), rotary), alpha=self.residual)
        return x_BTW.add(self.mlp(self.mlp_norm(x_BTW)), alpha=self.residual)


class RecurrentBlock(nn.Module):
    """A block whose positions are told apart by the recurrence itself; it reads no rotary tables."""

    def __init__(self, shape: ModelShape, rules: Parametrization) -> None:
        super().__init__()
        self.residual = rules.residual
        self.recurrent_norm = RMSNorm(shape.width)
        self.recurrent = Recurrent(shape)
        self.mlp_norm = RMSNorm(shape.width)
        self.mlp = SwiGLU(shape)

    def forward(self, x_BTW: Tensor, _rotary: tuple[Tensor, Tensor]) -> Tensor:
        x_BTW = x_BTW.add(self.recurrent(self.recurrent_norm(x_BTW)), alpha=self.residual)
        return x_BTW.add(self.mlp(self.mlp_norm(x_BTW)), alpha=self.residual)


class Attention(nn.Module):
    """Grouped-query causal attention; queries and keys are normalised per head, then rotated."""

    def __init__(self, shape: ModelShape, attend: Attend, scale: float, window: int | None) -> None:
        super().__init__()
        self.attend = attend
        self.norm_rotate = norm_rotate_before(attend)
        self.scale = scale
        self.window = window
        self.head_dim = shape.head_dim
        self.sizes = [shape.n_heads * shape.head_dim] + 2 * [shape.n_kv_heads * shape.head_dim]
        self.qkv = nn.Linear(shape.width, sum(self.sizes), bias=False)
        self.query_norm = RMSNorm(shape.head_dim)
        self.key_norm = RMSNorm(shape.head_dim)
        self.out = nn.Linear(self.sizes[0], shape.width, bias=False)

    def forward(self, x_BTW: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)) for part in self.qkv(x_BTW).split(self.sizes, dim=-1)
        )
        q_BHTd = self.place(q, self.query_norm, rotary)
        k_BKTd = self.place(k, self.key_norm, rotary)
        out_BHTd = self.attend(q_BHTd, k_BKTd, v.transpose(1, 2), self.scale, self.window)
        return self.out(out_BHTd.transpose(1, 2).flatten(2))

    def place(self, x_BTHd: Tensor, norm: RMSNorm, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Heads first, normalised and rotated to their positions."""
        if self.norm_rotate is not None:
            return self.norm_rotate(x_BTHd, norm.weight, *rotary, norm.eps)
        return rotate(norm(x_BTHd).transpose(1, 2), *rotary)


class Recurrent(nn.Module):
    """The state-space mixer of Mamba-2 (Dao and Gu 2024, arXiv:2405.21060, section 7.1), with one group:
    each head decays its state and adds what it writes, all at rates that depend on the token.

    The steps start at .001 to .1 and the decays per step at 1 to 16, as there, but spread evenly over the
    heads: they forget within one to a thousand positions. The convolution starts as the identity.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.sizes = list(shape.recurrent_sizes)
        self.mixed_sizes = [shape.inner, shape.state_size, shape.state_size]
        self.scan = chunked
        self.inward = nn.Linear(shape.width, sum(self.sizes), bias=False)
        self.taps = nn.Parameter(torch.zeros(self.sizes[1], CONVOLUTION))
        self.log_decay = nn.Parameter(torch.linspace(1, 16, shape.n_heads).log())
        steps = torch.logspace(-3, -1, shape.n_heads)
        self.step_bias = nn.Parameter(steps.expm1().log())  # where softplus gives the steps
        self.skip = nn.Parameter(torch.ones(shape.n_heads))
        self.norm = RMSNorm(shape.inner)
        self.out = nn.Linear(shape.inner, shape.width, bias=False)
        with torch.no_grad():
            self.taps[:, -1] = 1

    def forward(self, x_BTW: Tensor) -> Tensor:
        gate, mixed, step = self.inward(x_BTW).split(self.sizes, dim=-1)
        value, write_BTn, read_BTn = F.silu(convolve(mixed, self.taps)).split(self.mixed_sizes, dim=-1)
        value_BTHd = value.unflatten(-1, (-1, self.head_dim))
        step_BTH = F.softplus(step.float() + self.step_bias)
        decay_BTH = -step_BTH * self.log_decay.exp()
        out_BTHd = self.scan(value_BTHd * step_BTH[..., None], write_BTn, read_BTn, decay_BTH)
        out_BTHd = (out_BTHd + self.skip[:, None] * value_BTHd).to(x_BTW.dtype)
        return self.out(self.norm(out_BTHd.flatten(2) * F.silu(gate)))


def convolve(x_BTC: Tensor, taps_Ck: Tensor) -> Tensor:
    """Each channel with its own taps over the last k positions, the present one last; zeros before."""
    padded = F.pad(x_BTC.transpose(1, 2), (taps_Ck.shape[1] - 1, 0))
    return F.conv1d(padded, taps_Ck[:, None], groups=len(taps_Ck)).transpose(1, 2)


class SwiGLU(nn.Module):
    """Shazeer 2020, arXiv:2002.05202: down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_up = nn.Linear(shape.width, 2 * shape.mlp_hidden, bias=False)
        self.down = nn.Linear(shape.mlp_hidden, shape.width, bias=False)

    def forward(self, x_BTW: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTW).chunk(2, dim=-1)
        return self.down(F.silu(gate_BTF) * up_BTF)


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, arXiv:1910.07467, computed in float32."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rotary_tables(length: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, d / 2] of RoPE (Su et al. 2021, arXiv:2104.09864), in float64 then float32."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle_Td = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle_Td.cos().float(), angle_Td.sin().float()


def rotate(x_BHTd: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d / 2) of each head by its position's angle."""
    first, second = x_BHTd.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos_Td - second * sin_Td, second * cos_Td + first * sin_Td), dim=-1)
    return turned.to(x_BHTd.dtype)
