"""The full grid of masks, features, ragged lengths, tiles, strides and types. On demand: it takes minutes."""

from __future__ import annotations

import pytest

from kernels.testing import Case, failures, grid


@pytest.mark.parametrize("case", grid(), ids=str)
def test_within_the_error_budget(case: Case) -> None:
    assert failures(case) == []
