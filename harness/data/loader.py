"""Training batches as a pure function of (seed, step), and the fixed validation set."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from harness.data.permutation import permuted
from harness.data.shards import TokenStore
from harness.errors import CannotAnswer

# The permutation is computed for this many samples in one go: its cost a call is forty array operations.
PERMUTED_AT_ONCE = 4096


class Batches:
    """Batches of windows of one split: the same for any number of workers, ranks or restarts.

    Window w holds the tokens [w * context, w * context + context], so every window predicts `context`
    tokens that no other window predicts. Each epoch visits every window once, in a fresh order. A window
    may cross document boundaries; `TokenStore.document_ends` says where they are.
    """

    def __init__(
        self, store: TokenStore, *, split: str, context: int, batch_sequences: int, seed: int
    ) -> None:
        self._tokens = store.tokens(split)
        self.context, self.batch_sequences, self.seed = context, batch_sequences, seed
        self._blocks: dict[int, NDArray[np.int64]] = {}
        self.windows = max(0, (len(self._tokens) - 1) // context)
        if self.windows < batch_sequences:
            raise CannotAnswer(
                f"split {split} of {store.path} has {len(self._tokens)} tokens, {self.windows} windows of "
                f"{context}, fewer than one batch of {batch_sequences}: use more text or a smaller batch"
            )

    def batch(self, step: int) -> NDArray[np.int64]:
        """The batch of `step` (from 0): int64 [batch_sequences, context + 1]."""
        return self.rows(step, 0, self.batch_sequences)

    def rows(self, step: int, low: int, high: int) -> NDArray[np.int64]:
        """Rows low..high of the batch of `step`: int64 [high - low, context + 1]."""
        return self._tokens.windows(self.window_numbers(step, low, high) * self.context, self.context + 1)

    def window_numbers(self, step: int, low: int, high: int) -> NDArray[np.int64]:
        """Which windows rows low..high hold: [high - low]; a batch may straddle two epochs."""
        first = step * self.batch_sequences + low
        block, offset = divmod(first, PERMUTED_AT_ONCE)
        parts = [self._block(block)[offset : offset + high - low]]
        while (missing := high - low - sum(map(len, parts))) > 0:
            block += 1
            parts.append(self._block(block)[:missing])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _block(self, block: int) -> NDArray[np.int64]:
        """Windows of samples [block * PERMUTED_AT_ONCE, + PERMUTED_AT_ONCE), the latest ones kept."""
        numbers = self._blocks.get(block)
        if numbers is None:
            numbers = self._windows_of(block * PERMUTED_AT_ONCE + np.arange(PERMUTED_AT_ONCE))
            if len(self._blocks) >= 4:
                self._blocks.clear()
            self._blocks[block] = numbers
        return numbers

    def _windows_of(self, sample: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = np.empty(len(sample), np.int64)
        for epoch in np.unique(sample // self.windows).tolist():
            within = sample // self.windows == epoch
            numbers[within] = permuted(sample[within] % self.windows, self.windows, self.seed, epoch)
        return numbers

    def epoch(self, step: int) -> float:
        """Passes over the split completed before `step`."""
        return step * self.batch_sequences / self.windows

    def unique_tokens(self, steps: int) -> int:
        """Distinct training tokens predicted in the first `steps` steps."""
        return min(steps * self.batch_sequences, self.windows) * self.context


def validation_windows(
    store: TokenStore, context: int, tokens: int, seed: int | None = None
) -> NDArray[np.int64]:
    """About `tokens` predicted tokens of the validation split: int64 [n, context + 1].

    The windows do not overlap; n is tokens / context, or every window there is. They are the first of n
    equal stretches of the split, or with a `seed` any one of each stretch.
    """
    stream = store.tokens("val")
    available = (len(stream) - 1) // context
    if available < 1:
        raise CannotAnswer(
            f"validation split of {store.path} has {len(stream)} tokens, less than one window of {context}: "
            "use more text, a larger corpus.val_fraction or a shorter context"
        )
    count = min(available, max(1, tokens // context))
    ends = np.arange(count + 1) * available // count
    chosen = ends[:-1]
    if seed is not None:
        chosen = chosen + (np.random.default_rng(seed).random(count) * np.diff(ends)).astype(np.int64)
    return stream.windows(chosen * context, context + 1)


def target_bytes(windows: NDArray[np.int64], bytes_per_token: NDArray[np.uint16]) -> int:
    """UTF-8 bytes of the predicted tokens of `windows` [n, context + 1], for bits per byte."""
    return int(bytes_per_token[windows[:, 1:]].sum(dtype=np.int64))


def loader_tokens_per_second(
    store: TokenStore, *, context: int = 256, batch_sequences: int = 32, seconds: float = 1.0
) -> float:
    """Measured tokens per second of `Batches.batch` on one thread, from the page cache."""
    batches = Batches(store, split="train", context=context, batch_sequences=batch_sequences, seed=0)
    whole_epoch = batches.windows // batch_sequences
    for step in range(min(whole_epoch, 200)):
        batches.batch(step)
    began, step = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            batches.batch(step % min(whole_epoch, 200))
            step += 1
    return step * batch_sequences * context / (time.perf_counter() - began)
