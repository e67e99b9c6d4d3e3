"""Reinforcement learning: the reward that more compute will reach, from the first part of a run.

Sigmoid of Khatri et al. 2510.13786 (ScaleRL). They leave out the first 1,500 GPU-hours or so, fit to 8,000
and predict 16,000; R0 is then the measured reward of the start, not a parameter.
"""

from __future__ import annotations

import math

import numpy as np

from harness.laws.config import FitConfig, LawName
from harness.laws.forms.reward import REWARD
from harness.laws.objective import Objective, Response
from harness.laws.responses.resample import resample
from harness.laws.responses.result import ResponseFit, bootstrap_json
from harness.laws.responses.source import Source
from harness.laws.responses.step import Step, fit_step, refused
from harness.runs import Skipped

LARGEST_ERROR = 0.25
"""Of the plateau's standard error as a share of the rise: beyond it the plateau is not seen."""


def fit_reward(source: Source, config: FitConfig) -> ResponseFit:
    """From rows of compute (any unit) and reward. Rows below `law.skip` are left out, visibly.

    A run that has not bent yet is refused: its plateau is not seen.
    """
    table = source.read("compute", "reward")
    order = np.argsort(table.values["compute"], kind="stable")
    compute, reward = table.values["compute"][order], table.values["reward"][order]
    kept = compute >= config.law.skip
    held = {} if kept.all() else {"R0": float(reward[0])}
    how = Objective(response=Response.loss, delta=math.inf, fixed=held)
    step = plateau_seen(fit_step(REWARD, {"compute": compute[kept]}, reward[kept], how, quantity="reward"))
    left_out = [Skipped(table.labels[i], f"compute < {config.law.skip:g}") for i in order[~kept]]
    return ResponseFit(
        law=LawName.reward,
        response="reward",
        steps=(step,),
        replicates=resample((step,), config),
        conventions={"compute": "as given", "R0": "the first reward, held" if held else "fitted"},
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, int(kept.sum())),
        dropped=tuple(left_out),
    )


def plateau_seen(step: Step) -> Step:
    """The step, refused when its rows end before the bend or leave the plateau open."""
    largest = float(step.solution.rows["compute"].max())
    rise = abs(step.params["A"] - step.params["R0"])
    error = step.standard_errors["A"]
    found = []
    if step.params["C_mid"] > largest:
        middle = step.params["C_mid"]
        found.append(f"half of the rise lies at {middle:.3g}, beyond the largest compute {largest:.3g}")
    elif error > LARGEST_ERROR * rise:
        found.append(f"the plateau A = {step.params['A']:.3g} has a standard error of {error:.2g}: not seen")
    return refused(step, *found) if found else step
