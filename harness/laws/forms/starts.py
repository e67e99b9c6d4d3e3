"""Starting points by variable projection: amplitudes that enter linearly are solved, not searched."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np

from harness.laws.surfaces import Floats

SMALLEST_SHARE = 1e-3
"""An amplitude that the linear solve sets to zero starts at this share of the loss, so that its logarithm
exists and its gradient does not vanish."""

NEARLY_ABSOLUTE = 1e-3
"""Of the loss: below it the reweighted residual counts as its square."""

ELEMENTS_AT_ONCE = 1 << 22
"""Of the designs [K, n, c]; bounds the memory to about 100 MB."""


def projected(
    shapes: Iterable[tuple[float, ...]],
    design: Callable[..., Iterable[Floats]],
    target: Floats,
    reweightings: int = 0,
) -> list[tuple[Floats, tuple[float, ...]]]:
    """For each shape the non-negative amplitudes of the columns design(*shape), by relative error.

    Least squares; with `reweightings` it nears least absolute error, which outliers do not move.
    """
    found: list[tuple[Floats, tuple[float, ...]]] = []
    remaining = list(shapes)
    while remaining:
        columns = [np.column_stack([np.broadcast_to(c, target.shape) for c in design(*remaining[0])])]
        count = max(1, ELEMENTS_AT_ONCE // columns[0].size)
        chunk, remaining = remaining[:count], remaining[count:]
        for shape in chunk[1:]:
            columns.append(np.column_stack([np.broadcast_to(c, target.shape) for c in design(*shape)]))
        found.extend(zip(amplitudes_of(np.stack(columns), target, reweightings), chunk, strict=True))
    return found


def amplitudes_of(columns: Floats, target: Floats, reweightings: int) -> Floats:
    """[K, c] for columns [K, n, c]."""
    size = np.maximum(np.abs(columns).max(axis=1, keepdims=True), 1e-300)
    relative = columns / size / target[:, None]
    weights = np.ones(relative.shape[:2])
    solved = nonnegative_solve(relative, weights)
    for _ in range(reweightings):
        residual = np.einsum("knc,kc->kn", relative, solved) - 1
        solved = nonnegative_solve(relative, 1 / np.maximum(np.abs(residual), NEARLY_ABSOLUTE))
    return np.asarray(np.maximum(solved, SMALLEST_SHARE * target.min()) / size[:, 0])


def nonnegative_solve(design: Floats, weights: Floats) -> Floats:
    """Weighted least squares of 1 on `design` [K, n, c] with non-negative coefficients [K, c].

    With three columns there are seven sets of columns that may be positive: solve each, keep the best
    feasible one. That is exact and has no loop over the batch.
    """
    weighted = design * weights[..., None]
    gram = np.swapaxes(weighted, 1, 2) @ design
    moment = weighted.sum(axis=1)
    columns = design.shape[2]
    best = np.zeros_like(moment)
    gain = np.zeros(len(design))
    for size in range(1, columns + 1):
        for chosen in itertools.combinations(range(columns), size):
            sub = gram[:, chosen][:, :, chosen]
            ridge = np.maximum(1e-13 * np.trace(sub, axis1=1, axis2=2), 1e-280)[:, None, None]
            solved = np.linalg.solve(sub + ridge * np.eye(size), moment[:, chosen][..., None])[..., 0]
            explained = (solved * moment[:, chosen]).sum(axis=1)
            take = (solved >= 0).all(axis=1) & (explained > gain)
            full = np.zeros_like(moment)
            full[:, chosen] = solved
            best = np.where(take[:, None], full, best)
            gain = np.where(take, explained, gain)
    return best


def stacked(found: Iterable[tuple[Floats, tuple[float, ...]]]) -> Floats:
    """[k, p]: the amplitudes first, then the shape."""
    return np.array([[*amplitudes, *shape] for amplitudes, shape in found])
