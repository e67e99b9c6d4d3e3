"""Training speed: our path through Lightning beside the plainest loop over the same model."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from torch.nn.utils import clip_grad_norm_

from harness.data.loader import Batches, loader_tokens_per_second
from harness.data.shards import TokenStore
from harness.model.init import build_model
from harness.runs import RunDirectory, claim
from harness.training.callbacks import Clock, Metrics
from harness.training.cell import Cell
from harness.training.distributed import choose_device
from harness.training.module import TrainingModule, wants_compile
from harness.training.run import Data, attention_of, build_module, open_data, quiet_lightning
from harness.training.settings import Precision
from harness.training.steps import spans

WARM_STEPS = 10
Loop = Callable[[int], float]
"""Seconds for so many optimizer steps."""


@dataclass(frozen=True)
class TrainSpeed:
    """Median tokens per second of both, and the median of the ratios taken pair by pair."""

    model: str
    params_non_embedding: int
    ours: float
    bare: float
    ratio: float
    compiled: bool
    precision: str
    threads: int


def train_speed(cell: Cell, steps: int, repeats: int) -> TrainSpeed:
    """Time `steps` optimizer steps of each, in turn, `repeats` times, after a warm-up of both."""
    quiet_lightning()
    if cell.config.hardware.threads is not None:
        torch.set_num_threads(cell.config.hardware.threads)
    data = open_data(cell)
    bare = bare_loop(cell, data.batches)
    ours = lightning_loop(cell, data)
    for loop in (bare, ours):
        loop(WARM_STEPS)
    pairs = [turn(ours, bare, steps, swapped=bool(number % 2)) for number in range(repeats)]
    tokens = steps * cell.horizon.batch_tokens
    return TrainSpeed(
        model=cell.config.model.name,
        params_non_embedding=cell.shape.params.non_embedding,
        ours=tokens / statistics.median(a for a, _ in pairs),
        bare=tokens / statistics.median(b for _, b in pairs),
        ratio=statistics.median(b / a for a, b in pairs),
        compiled=wants_compile(cell.config.hardware.compile),
        precision=cell.config.hardware.precision.value,
        threads=torch.get_num_threads(),
    )


def turn(ours: Loop, bare: Loop, steps: int, *, swapped: bool) -> tuple[float, float]:
    """Seconds of both, one right after the other; who goes first changes, since machines drift."""
    if swapped:
        seconds = bare(steps)
        return ours(steps), seconds
    return ours(steps), bare(steps)


def bare_loop(cell: Cell, batches: Batches) -> Loop:
    """Seconds for so many steps of the loop one would write by hand: no logging, no accumulation."""
    config = cell.config
    device = choose_device(config.hardware.device)
    attend = attention_of(cell, device).attend
    model = build_model(cell.shape, attend, config.init, config.parametrization, config.seed, config.loss).to(
        device
    )
    loss_of = (
        torch.compile(model.loss, dynamic=False) if wants_compile(config.hardware.compile) else model.loss
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=cell.peak_lr, fused=True)
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=config.hardware.precision is Precision.bf16, cache_enabled=True
    )

    def run(steps: int) -> float:
        began = time.perf_counter()
        for step in range(steps):
            windows = torch.from_numpy(batches.batch(step)).to(device)
            with autocast:
                loss = loss_of(windows[:, :-1], windows[:, 1:])
            loss.backward()
            clip_grad_norm_(model.parameters(), config.optim.clip_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        float(loss.detach())  # waits for a GPU
        return time.perf_counter() - began

    return run


def lightning_loop(cell: Cell, data: Data) -> Loop:
    """Seconds for so many steps of the real path, metrics rows included; set-up and tear-down left out."""
    module, _ = build_module(cell, data, None)

    def run(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return time_fit(module, cell, steps, Path(folder))

    return run


def time_fit(module: TrainingModule, cell: Cell, steps: int, folder: Path) -> float:
    clock = Clock(0.0, cell.horizon.batch_tokens)
    metrics = Metrics(cell, claim(RunDirectory(folder)), clock)
    watch = StopWatch()
    device = choose_device(cell.config.hardware.device)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock, metrics, watch],
    )
    trainer.fit(module, spans(cell, 0, set(), steps))
    return watch.seconds


class StopWatch(lightning.Callback):
    """From the start of the first span to the end of the last, everything between included."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.seconds = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        self.began = self.began or time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        self.seconds = time.perf_counter() - (self.began or 0.0)


@dataclass(frozen=True)
class LoaderSpeed:
    """Tokens per second from the page cache, one thread."""

    ours: float
    reference: float
    ratio: float


class Windows(torch.utils.data.Dataset):
    """The usual map-style dataset: one slice and one tensor an item."""

    def __init__(self, store: TokenStore, context: int) -> None:
        self.tokens, self.context = store.tokens("train"), context

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.context

    def __getitem__(self, index: int) -> torch.Tensor:
        start = index * self.context
        return torch.from_numpy(self.tokens[start : start + self.context + 1].astype("int64"))


def loader_speed(cell: Cell, repeats: int, seconds: float = 1.0) -> LoaderSpeed:
    """Ours beside torch's DataLoader over the same shards, in turn."""
    store = TokenStore.open(Path(cell.tokens_path))
    context, rows = cell.horizon.context, max(16, cell.horizon.batch_sequences)
    pairs = [
        (
            loader_tokens_per_second(store, context=context, batch_sequences=rows, seconds=seconds),
            reference_tokens_per_second(store, context, rows, seconds),
        )
        for _ in range(repeats)
    ]
    return LoaderSpeed(
        ours=statistics.median(a for a, _ in pairs),
        reference=statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
    )


def reference_tokens_per_second(store: TokenStore, context: int, rows: int, seconds: float) -> float:
    loader = torch.utils.data.DataLoader(Windows(store, context), batch_size=rows, shuffle=True)
    began, tokens = time.perf_counter(), 0
    for batch in loader:
        tokens += batch.shape[0] * context
        if time.perf_counter() - began > seconds:
            break
    return tokens / (time.perf_counter() - began)
