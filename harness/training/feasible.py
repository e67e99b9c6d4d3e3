"""What training would refuse before its first step, found while planning; without torch where that can be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.data.loader import Batches, validation_windows
from harness.data.shards import TokenStore
from harness.model.settings import AttentionKind
from harness.training.cell import Cell

TORCH_ONLY = (AttentionKind.auto, AttentionKind.sdpa, AttentionKind.reference)


def refuse_untrainable(cells: Iterable[Cell]) -> None:
    """Raises CannotAnswer for a batch or context larger than the corpus, WrongInput for an attention that
    is not there."""
    for path, context, batch, tokens in {data_needs(cell) for cell in cells}:
        store = TokenStore.open(Path(path))
        Batches(store, split="train", context=context, batch_sequences=batch, seed=0)
        validation_windows(store, context, tokens)
    for kind in {cell.config.attention.kind for cell in cells}.difference(TORCH_ONLY):
        from harness.model.attention import build_attention

        build_attention(kind)


def data_needs(cell: Cell) -> tuple[str, int, int, int]:
    horizon = cell.horizon
    return cell.tokens_path, horizon.context, horizon.batch_sequences, cell.config.evaluation.tokens
