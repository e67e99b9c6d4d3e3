"""The memory roofline of decoding by hand."""

from __future__ import annotations

import pytest

from harness.decide.roofline import Bound, Device, Model, decoding_step
from harness.errors import WrongInput

SEVEN = Model(params_active=7e9, params_total=7e9, bytes_per_param=2, kv_bytes_per_token=524_288)
DEVICE = Device(flops_per_second=312e12, bytes_per_second=1.555e12)


def test_one_sequence_waits_for_the_weights():
    step = decoding_step(SEVEN, DEVICE, batch=1, context=0)
    assert step.bound is Bound.memory
    assert step.seconds == pytest.approx(14e9 / 1.555e12)
    assert step.compute_seconds == pytest.approx(14e9 / 312e12)


def test_batches_are_free_until_the_ridge():
    """Without a cache the arithmetic overtakes at FLOPS/bandwidth sequences of two-byte weights."""
    ridge = 312e12 / 1.555e12
    below, above = (decoding_step(SEVEN, DEVICE, batch, 0) for batch in (int(ridge), int(ridge) + 1))
    assert (below.bound, above.bound) == (Bound.memory, Bound.compute)
    assert above.tokens_per_second == pytest.approx(312e12 / 14e9)


def test_the_cache_of_a_long_context_counts_per_sequence():
    step = decoding_step(SEVEN, DEVICE, batch=64, context=8192)
    assert step.memory_seconds == pytest.approx((14e9 + 64 * 8192 * 524_288) / 1.555e12)
    assert step.bound is Bound.memory


def test_bad_batch():
    with pytest.raises(WrongInput, match="batch >= 1"):
        decoding_step(SEVEN, DEVICE, batch=0, context=1)
