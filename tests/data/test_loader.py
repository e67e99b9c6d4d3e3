"""Batches are a pure function of (seed, step)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.loader import Batches, target_bytes, validation_windows
from harness.data.permutation import permuted
from harness.errors import CannotAnswer

from .synthetic import write_store

CONTEXT = 8


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 50))
def test_permutation_is_a_bijection(size, seed, epoch):
    image = permuted(np.arange(size), size, seed, epoch)
    assert sorted(image.tolist()) == list(range(size))


def test_permutation_is_elementwise_and_depends_on_seed_and_epoch():
    whole = permuted(np.arange(1000), 1000, 7, 0)
    assert permuted(np.array([999, 3]), 1000, 7, 0).tolist() == [whole[999], whole[3]]
    for seed, epoch in [(8, 0), (7, 1)]:
        other = permuted(np.arange(1000), 1000, seed, epoch)
        assert (other == whole).mean() < 0.02


def test_permutation_looks_random():
    size = 10_000
    image = permuted(np.arange(size), size, 1, 2)
    assert abs(np.corrcoef(np.arange(size), image)[0, 1]) < 0.05
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.05


@pytest.fixture
def store(tmp_path):
    # 100 windows of 8 tokens and one more target, in shards of 60 tokens.
    train = np.arange(801) % 251
    return write_store(tmp_path / "s", {"train": train, "val": np.arange(200) % 7}, shard_bytes=120)


def batches(store, **values):
    return Batches(store, **{"split": "train", "context": CONTEXT, "batch_sequences": 7, "seed": 3, **values})


def test_batch_is_shifted_text_and_repeatable(store):
    loader = batches(store)
    assert loader.windows == 100
    batch = loader.batch(5)
    assert batch.shape == (7, CONTEXT + 1)
    assert batch.dtype == np.int64
    numbers = loader.window_numbers(5, 0, 7)
    expected = (numbers[:, None] * CONTEXT + np.arange(CONTEXT + 1)) % 251
    assert np.array_equal(batch, expected)
    assert np.array_equal(batches(store).batch(5), batch)


def test_ranks_and_micro_batches_agree_with_the_whole(store):
    loader = batches(store)
    for step in (0, 13, 14, 40):
        parts = [loader.rows(step, low, high) for low, high in [(0, 2), (2, 3), (3, 7)]]
        assert np.array_equal(np.concatenate(parts), loader.batch(step))


def test_an_epoch_visits_every_window_once_then_reshuffles(store):
    loader = batches(store, batch_sequences=10)
    epochs = [
        np.concatenate([loader.window_numbers(step, 0, 10) for step in range(first, first + 10)])
        for first in (0, 10)
    ]
    for visited in epochs:
        assert sorted(visited.tolist()) == list(range(100))
    assert not np.array_equal(*epochs)


def test_a_batch_may_straddle_epochs(store):
    loader = batches(store, batch_sequences=30)
    seen = np.concatenate([loader.window_numbers(step, 0, 30) for step in range(4)])
    assert sorted(seen[:100].tolist()) == list(range(100))
    assert loader.epoch(4) == pytest.approx(1.2)


def test_unique_tokens_counts_distinct_targets(store):
    loader = batches(store, batch_sequences=30)
    for steps in (0, 1, 3, 4, 9):
        seen = {int(w) for step in range(steps) for w in loader.window_numbers(step, 0, 30)}
        assert loader.unique_tokens(steps) == len(seen) * CONTEXT


def test_batches_cross_the_blocks_the_permutation_is_computed_in(store, monkeypatch):
    whole = [batches(store).batch(step) for step in range(12)]
    monkeypatch.setattr("harness.data.loader.PERMUTED_AT_ONCE", 3)
    loader = batches(store)
    for step in (11, 0, 5, 2, 11):
        assert np.array_equal(loader.batch(step), whole[step])


def test_seeds_differ(store):
    assert not np.array_equal(batches(store).batch(0), batches(store, seed=4).batch(0))


def test_corpus_smaller_than_a_batch(store):
    with pytest.raises(CannotAnswer, match="fewer than one batch of 101") as error:
        batches(store, batch_sequences=101)
    assert "\n" not in str(error.value)


def test_validation_windows_are_spread_and_fixed(store):
    windows = validation_windows(store, CONTEXT, 5 * CONTEXT)
    assert windows.shape == (5, CONTEXT + 1)
    starts = [0, 4, 9, 14, 19]
    assert windows[:, 0].tolist() == [w * CONTEXT % 7 for w in starts]
    assert validation_windows(store, CONTEXT, 10**9).shape == (24, CONTEXT + 1)
    with pytest.raises(CannotAnswer, match="less than one window of 500"):
        validation_windows(store, 500, 10)


def test_a_validation_seed_moves_each_window_within_its_stretch(store):
    """The first token of window w is w mod 7, which tells the five windows of a stretch apart."""
    ends = [0, 4, 9, 14, 19, 24]
    drawn = set()
    for seed in range(20):
        windows = validation_windows(store, CONTEXT, 5 * CONTEXT, seed)
        again = validation_windows(store, CONTEXT, 5 * CONTEXT, seed)
        assert windows.tolist() == again.tolist() and windows.shape == (5, CONTEXT + 1)
        for first, low, high in zip(windows[:, 0], ends, ends[1:], strict=False):
            assert int(first) in {w * CONTEXT % 7 for w in range(low, high)}
        drawn.add(tuple(windows[:, 0].tolist()))
    assert len(drawn) > 10
    whole = validation_windows(store, CONTEXT, 10**9)
    assert validation_windows(store, CONTEXT, 10**9, 3).tolist() == whole.tolist()


def test_target_bytes_leave_the_first_token_out():
    lengths = np.array([1, 2, 300, 0], np.uint16)
    windows = np.array([[2, 0, 1], [0, 2, 3]])
    assert target_bytes(windows, lengths) == 1 + 2 + 300 + 0
    assert target_bytes(np.full((1000, 101), 2), lengths) == 300 * 100 * 1000
