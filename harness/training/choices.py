"""Who computes a run's attention and loss."""

from __future__ import annotations

import torch

from harness.errors import WrongInput
from harness.model.attention import Attention, Tuning, build_attention
from harness.model.loss import CrossEntropy, build_loss
from harness.model.settings import CpuAttention
from harness.training.cell import Cell
from harness.training.checkpoint import State
from harness.training.distributed import World
from harness.training.settings import Precision


def attention_of(cell: Cell, device: torch.device, compiled: bool, tuning: Tuning | None = None) -> Attention:
    """A run that is not compiled may be without a compiler, and goes on elsewhere as it began."""
    config = cell.config
    on_cpu = config.hardware.cpu_attention if compiled else CpuAttention.sdpa
    return build_attention(config.attention.kind, cell.shape, device, products_in(cell), on_cpu, tuning)


def tuning_of(cell: Cell, state: State | None, world: World) -> Tuning | None:
    """A run goes on with the tiles it began with, the shipped ones where its search had failed."""
    if not cell.config.hardware.autotune or (state and state.attention_tiles is None):
        return None
    if world.size > 1:
        raise WrongInput("hardware.autotune=true: several processes might choose several tiles; leave it out")
    return Tuning(cell.shape.context, state.attention_tiles if state else None)


def loss_of(cell: Cell, device: torch.device) -> CrossEntropy:
    return build_loss(cell.config.loss, cell.shape, device, products_in(cell))


def products_in(cell: Cell) -> torch.dtype:
    return torch.bfloat16 if cell.config.hardware.precision is Precision.bf16 else torch.float32
