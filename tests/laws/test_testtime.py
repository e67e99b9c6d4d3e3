"""Published figures of compute at test time."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import WrongInput
from harness.laws.testtime import matched_samples, speculative_speedup, speculative_tokens


@pytest.mark.parametrize("inference_ratio, samples", [(0.16, 257.75), (0.79, 63.37), (22, 15.77)])
def test_flops_matched_exchange(inference_ratio, samples):
    """Snell et al. 2408.03314 with a model 14 times larger."""
    assert matched_samples(14, inference_ratio) == pytest.approx(samples, abs=5e-3)


@pytest.mark.parametrize(
    "acceptance, draft, cost, tokens, speedup",
    [(0.8, 5, 0.05, 3.68928, 2.9514), (0.6, 3, 0.1, 2.176, 1.6738)],
)
def test_speculative_decoding(acceptance, draft, cost, tokens, speedup):
    """Leviathan et al. 2211.17192."""
    assert speculative_tokens(acceptance, draft) == pytest.approx(tokens, abs=5e-6)
    assert speculative_speedup(acceptance, draft, cost) == pytest.approx(speedup, abs=5e-5)


def test_speculative_tokens_by_simulation():
    rng = np.random.default_rng(0)
    kept = rng.random((200_000, 5)) < 0.8
    accepted = np.cumprod(kept, axis=1).sum(axis=1)
    assert 1 + accepted.mean() == pytest.approx(speculative_tokens(0.8, 5), rel=5e-3)


def test_limits_and_refusals():
    assert speculative_tokens(1.0, 4) == 5
    assert speculative_tokens(0.0, 4) == 1
    with pytest.raises(WrongInput, match=r"acceptance lies in \[0, 1\]"):
        speculative_tokens(1.2, 3)
    with pytest.raises(WrongInput, match="R positive"):
        matched_samples(14, 0)
    with pytest.raises(WrongInput, match="must not be negative"):
        speculative_speedup(0.5, 2, -1)
