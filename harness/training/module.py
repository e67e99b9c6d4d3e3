"""The training step: gradients of one global batch, clipped, applied at the scheduled learning rate."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.data.loader import Batches
from harness.model.transformer import Transformer
from harness.training.distributed import (
    ALONE,
    World,
    averaged,
    resolve_strategy,
    shard,
    shard_moments,
    summed,
    sync_gradients,
)
from harness.training.gemm import compile_with
from harness.training.lean import lightning
from harness.training.optim import build_optimizer, clip_gradients, set_lr
from harness.training.schedule import LrAt
from harness.training.settings import HardwareConfig, OptimConfig, Precision, Strategy


@dataclass(frozen=True)
class Span:
    """Optimizer steps start, ..., stop - 1, run back to back."""

    start: int
    stop: int


@dataclass(frozen=True)
class SpanResult:
    """Per-step mean losses in nats per token, and gradient norms before clipping."""

    losses: list[float]
    grad_norms: list[float]

    @property
    def first_bad(self) -> int | None:
        """Index of the first step whose loss or gradient is not finite."""
        pairs = zip(self.losses, self.grad_norms, strict=True)
        bad = (i for i, (loss, norm) in enumerate(pairs) if not (math.isfinite(loss) and math.isfinite(norm)))
        return next(bad, None)


class TrainingModule(lightning.LightningModule):
    """One Lightning batch is a span of optimizer steps.

    Lightning's bookkeeping costs a few tenths of a millisecond a batch, which is several percent of a
    tiny model's step; per span it vanishes, and losses leave the device once a span. Optimization is
    manual for the same reason, and so that autocast never caches a weight across an update.
    """

    def __init__(
        self,
        model: Transformer,
        batches: Batches,
        optim: OptimConfig,
        hardware: HardwareConfig,
        lr_at: LrAt,
        micro_batch: int,
        compiled: bool,
        world: World = ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.batches = batches
        self.weights = list(model.parameters())  # walking the module tree every step would show
        self.optim = optim
        self.lr_at = lr_at
        self.micro_batch = micro_batch
        self.precision = hardware.precision
        self.compiled = compiled
        self.world = world
        self.strategy = resolve_strategy(hardware.strategy, world)
        self.sharded = self.strategy == Strategy.fsdp.value
        whole = self.compiled and not self.sharded
        self.batch_loss = compile_with(hardware.gemm, model.loss) if whole else model.loss
        self.optimizer_state: dict | None = None

    def configure_model(self) -> None:
        """A sharded model is compiled block by block, since blocks are gathered one by one."""
        if not self.sharded:
            return
        assert self.device_mesh is not None
        if self.compiled:
            for block in self.model.blocks:
                block.compile(dynamic=False)
        shard(self.model, self.device_mesh["data_parallel"])
        self.weights = list(self.model.parameters())
        self.batch_loss = self.model.loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.model, self.optim, self.lr_at(0))
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
            shard_moments(optimizer)
        return optimizer

    def transfer_batch_to_device(self, batch: Span, device: torch.device, dataloader_idx: int) -> Span:
        return batch  # a span holds no tensors; its batches move when they are read

    @property
    def own_optimizer(self) -> torch.optim.Optimizer:
        """The bare optimizer, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def training_step(self, span: Span, _index: int) -> None:
        optimizer = self.own_optimizer
        pairs = [self.optimizer_step_at(step, optimizer) for step in range(span.start, span.stop)]
        losses, norms = (torch.stack(column) for column in zip(*pairs, strict=True))
        self.span_result = SpanResult(averaged(losses).tolist(), norms.tolist())

    def optimizer_step_at(self, step: int, optimizer: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
        share = self.world.share(self.batches.batch_sequences)
        loss = self.accumulate_gradients(self.batches.rows(step, share.start, share.stop))
        norm = clip_gradients(self.weights, self.optim.clip_grad_norm)
        set_lr(optimizer, self.lr_at(step))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def accumulate_gradients(self, windows: np.ndarray) -> Tensor:
        """Mean loss of this process's rows [sequences, context + 1], the gradients of the whole batch left
        in the parameters."""
        parts = len(windows) // self.micro_batch
        if parts == 1:
            return self.backward_of(windows)
        rows = np.split(windows, parts)
        losses = [self.backward_of(part, parts, last=part is rows[-1]) for part in rows]
        return torch.stack(losses).sum()

    def backward_of(self, windows: np.ndarray, parts: int = 1, *, last: bool = True) -> Tensor:
        """This micro-batch's share of the rows' mean loss; its gradients are added to the others', and
        the processes' gradients are averaged with the last."""
        tokens, targets = self.to_device(windows)
        with self.autocast():
            loss = self.batch_loss(tokens, targets)
        if parts > 1:
            loss = loss / parts
        if self.sharded:
            sync_gradients(self.model, last)
        if last and self.world.size > 1:
            self.manual_backward(loss)  # DDP averages only what comes through here
        else:
            loss.backward()
        return loss.detach()

    def to_device(self, windows: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(windows)
        if self.device.type == "cuda":
            rows = rows.pin_memory()  # what is not pinned is copied when the steps before are done
        rows = rows.to(self.device, non_blocking=True)
        return rows[:, :-1], rows[:, 1:]

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.precision is Precision.bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @torch.no_grad()
    def validation_loss(self, windows: np.ndarray) -> float:
        """Mean loss in nats per token over windows [n, context + 1], which the processes share.

        All take equally many turns, since a sharded model needs everyone: what a process does in a turn
        that is not its own counts nothing."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for first in range(0, len(windows), self.micro_batch * self.world.size):
            start = first + self.world.rank * self.micro_batch
            rows = windows[start : start + self.micro_batch]
            tokens, targets = self.to_device(rows if len(rows) else windows[:1])
            with self.autocast():
                total += self.model.loss(tokens, targets).double() * len(rows)
        return float(summed(total)) / len(windows)
