"""What a model's activations do in its first steps, measured on one fixed batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from harness.model.attention import build_attention
from harness.model.init import build_model
from harness.model.transformer import Transformer
from harness.training.cell import Cell
from harness.training.coordinates import Magnitudes, Reading
from harness.training.distributed import choose_device
from harness.training.optim import build_optimizer, clip_gradients
from harness.training.run import open_data


def readings(cell: Cell) -> list[Reading]:
    """The cell's model at its start and after each of its steps, at the peak learning rate throughout,
    in float32 and uncompiled: what is asked is how the model scales, not how fast it is."""
    config = cell.config
    device = choose_device(config.hardware.device)
    attention = build_attention(config.attention.kind, cell.shape, device, torch.float32)
    model = build_model(cell.shape, attention.attend, config.init, config.parametrization, config.seed).to(
        device
    )
    optimizer = build_optimizer(model, config.optim, cell.peak_lr)
    batches = open_data(cell).batches
    windows = [torch.from_numpy(batches.batch(step)).to(device) for step in range(cell.horizon.steps)]
    start = activations(model, windows[0][:, :-1])
    found = [reading(cell, 0, start, start)]
    for step, rows in enumerate(windows, start=1):
        model.loss(rows[:, :-1], rows[:, 1:]).backward()
        clip_gradients(model.parameters(), config.optim.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.append(reading(cell, step, start, activations(model, windows[0][:, :-1])))
    return found


@dataclass(frozen=True)
class Activations:
    """Of one batch: the embedding's output, what each block adds to it [B, T, W], and the logits."""

    embedding: Tensor
    blocks: list[Tensor]
    logits: Tensor

    @property
    def hidden(self) -> Tensor:
        """The residual stream after the last block, before the final norm."""
        return torch.stack([self.embedding, *self.blocks]).sum(0)


@torch.no_grad()
def activations(model: Transformer, tokens_BT: Tensor) -> Activations:
    stream: list[Tensor] = []
    watched = [model.embedding, *model.blocks]
    hooks = [m.register_forward_hook(lambda _module, _inputs, out: stream.append(out)) for m in watched]
    try:
        logits = model(tokens_BT)
    finally:
        for hook in hooks:
            hook.remove()
    return Activations(stream[0], [after - before for before, after in pairwise(stream)], logits)


def reading(cell: Cell, step: int, start: Activations, now: Activations) -> Reading:
    change = Activations(
        now.embedding - start.embedding,
        [new - old for old, new in zip(start.blocks, now.blocks, strict=True)],
        now.logits - start.logits,
    )
    return Reading(
        width=cell.shape.width,
        depth=cell.shape.depth,
        seed=cell.config.seed,
        step=step,
        rms=magnitudes(now),
        change=magnitudes(change),
    )


def magnitudes(activations: Activations) -> Magnitudes:
    return Magnitudes(
        embedding=rms(activations.embedding),
        blocks=tuple(rms(block) for block in activations.blocks),
        hidden=rms(activations.hidden),
        logits=rms(activations.logits),
    )


def rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
