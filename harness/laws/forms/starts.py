"""Starting points by variable projection: amplitudes that enter linearly are solved, not searched."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from harness.laws.surfaces import Floats

SMALLEST_SHARE = 1e-3
"""An amplitude that non-negative least squares sets to zero starts at this share of the loss, so that
its logarithm exists and its gradient does not vanish."""


def projected(
    shapes: Iterable[tuple[float, ...]],
    design: Callable[..., Iterable[Floats]],
    target: Floats,
) -> list[tuple[Floats, tuple[float, ...]]]:
    """For each shape the non-negative amplitudes of the columns design(*shape), by relative error."""
    from scipy.optimize import nnls

    found = []
    for shape in shapes:
        columns = np.column_stack([np.broadcast_to(c, target.shape) for c in design(*shape)])
        size = np.maximum(np.abs(columns).max(axis=0), 1e-300)
        solved, _ = nnls(columns / size / target[:, None], np.ones(len(target)))
        found.append((np.maximum(solved, SMALLEST_SHARE * target.min()) / size, shape))
    return found


def stacked(found: Iterable[tuple[Floats, tuple[float, ...]]]) -> Floats:
    """[k, p]: the amplitudes first, then the shape."""
    return np.array([[*amplitudes, *shape] for amplitudes, shape in found])
