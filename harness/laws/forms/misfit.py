"""Does a form bend where its rows bend? The F test of `laws.identify.check_curvature` for any columns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from harness.laws.forms.form import Form, Rows
from harness.laws.forms.solve import Response, Surface
from harness.laws.identify import CURVATURE_LEVEL, CURVATURE_RESIDUAL, CURVATURE_SHARE, ROBUST_TURN, rest
from harness.laws.solve import robust_scale
from harness.laws.surfaces import Floats


def products(form: Form, rows: Rows) -> list[Floats]:
    """Squares and products of the logarithms of the positive columns that vary, each [n]."""
    logs = [np.log(rows[name]) for name in form.columns if name not in form.signed]
    centred = [log - log.mean() for log in logs if np.ptp(log) > 0]
    return [one * other for one, other in itertools.combinations_with_replacement(centred, 2)]


def missing_curvature(
    form: Form, rows: Rows, theta: Floats, free: npt.NDArray[np.bool_], residual: Floats
) -> str:
    """Why the form misses a bend of its rows; empty when it does not, or too few rows could tell.

    `residual` [n] is of ln L, `free` [p] says which parameters were fitted. Rows far off are weighted down
    as by a Huber loss, so that outliers do not pass for a bend.
    """
    from scipy.special import fdtr

    none = np.zeros(0)
    jacobian = Surface(form, rows, Response.log).gradient(theta[None], none, none)[1][0]
    own, extra = jacobian[:, free], products(form, rows)
    freedom = len(residual) - own.shape[1] - len(extra)
    if freedom < 2 or not extra:
        return ""
    reach = ROBUST_TURN * robust_scale(residual, own.shape[1]) / np.maximum(np.abs(residual), 1e-300)
    root = np.sqrt(np.minimum(1.0, reach))[:, None]
    weighted = residual * root[:, 0]
    plain, curved = rest(own * root, weighted), rest(np.column_stack([own, *extra]) * root, weighted)
    level = math.sqrt(plain / (freedom + len(extra)))
    if level < CURVATURE_RESIDUAL:
        return ""
    share = 1 - curved / plain
    statistic = (plain - curved) / len(extra) / (curved / freedom)
    chance = 1 - float(fdtr(len(extra), freedom, statistic))
    if chance >= CURVATURE_LEVEL or share <= CURVATURE_SHARE:
        return ""
    return (
        f"curvature that the law lacks explains {share:.0%} of the residual variance (p = {chance:.1g}), "
        f"residual {level:.2%}: the rows bend where the law does not"
    )
