"""A cell's memory: how it is split into micro-batches, and what it will take. No torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness.training.cell import Cell
from harness.training.memory import Memory, Place, fit_micro_batch, micro_batch_sequences, training_memory
from harness.training.settings import Compile, Device, Strategy


def place_of(cell: Cell, processes: int = 1) -> Place:
    """As planned: compiled unless it must not be, on a CPU unless a GPU is asked for."""
    hardware = cell.config.hardware
    return Place(
        on_gpu=hardware.device is Device.cuda,
        compiled=hardware.compile is not Compile.never,
        checkpointing=hardware.activation_checkpointing,
        sharded=hardware.strategy is Strategy.fsdp,
        processes=processes,
        data_bytes=0 if hardware.device is Device.cuda else token_bytes(cell.tokens_path),
    )


def micro_batch_of(cell: Cell, processes: int = 1) -> int:
    """Sequences that one process takes at a time. Raises WrongInput when not even one fits."""
    config, share = cell.config, cell.horizon.batch_sequences // processes
    hardware, place = config.hardware, place_of(cell, processes)
    if hardware.memory_gib is not None:
        return fit_micro_batch(cell.shape, share, hardware.memory_gib, config.optim.kind, config.loss, place)
    return micro_batch_sequences(
        cell.shape, share, hardware.activation_gib, config.loss, checkpointing=place.checkpointing
    )


def memory_of(cell: Cell, processes: int = 1) -> Memory:
    """What one process of the run is estimated to take. Raises as `micro_batch_of` does."""
    config, micro_batch = cell.config, micro_batch_of(cell, processes)
    parts = cell.horizon.batch_sequences // processes // micro_batch
    place = place_of(cell, processes)
    return training_memory(cell.shape, micro_batch, parts, config.optim.kind, config.loss, place)


@cache
def token_bytes(tokens_path: str) -> int:
    return sum(file.stat().st_size for file in Path(tokens_path).glob("*.bin"))
