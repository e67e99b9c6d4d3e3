"""What training would refuse before its first step, found while planning; without torch where that can be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.data.loader import Batches, validation_windows
from harness.data.shards import TokenStore
from harness.model.settings import AttentionKind
from harness.training.cell import Cell
from harness.training.settings import Device


def refuse_untrainable(cells: Iterable[Cell]) -> None:
    """Raises CannotAnswer for a batch or context larger than the corpus, WrongInput for an attention that
    is not there."""
    for path, context, batch, tokens in {data_needs(cell) for cell in cells}:
        store = TokenStore.open(Path(path))
        Batches(store, split="train", context=context, batch_sequences=batch, seed=0)
        validation_windows(store, context, tokens)
    for cell in cells:
        if cell.config.attention.kind is AttentionKind.triton:
            refuse_attention(cell)


def refuse_attention(cell: Cell) -> None:
    """Where hardware.device=cuda, the plan may be made on a machine without the GPU it is made for."""
    import torch

    from harness.model.attention import refuse_device, refuse_triton
    from harness.training.choices import products_in

    refuse_triton(cell.shape)
    device = cell.config.hardware.device
    if device is not Device.cuda:
        here = device is Device.auto and torch.cuda.is_available()
        refuse_device(torch.device("cuda" if here else "cpu"), cell.shape, products_in(cell))


def data_needs(cell: Cell) -> tuple[str, int, int, int]:
    horizon = cell.horizon
    return cell.tokens_path, horizon.context, horizon.batch_sequences, cell.config.evaluation.tokens
