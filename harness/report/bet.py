"""The figure of a forecast: the runs, the ensemble's way from them to the bet, and its record on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.laws.observations import Observations


def bet_figure(
    observations: Observations, forecast: dict[str, Any], way: Sequence[dict[str, Any]], command: str = ""
) -> str:
    """SVG. Above: loss against compute, the runs, the ensemble with its interval along `way` (see
    `forecast.predict.way_to`), the bet. Below: the errors of such forecasts inside the runs against their
    extrapolation ratio, beside the bet's. `forecast` is its JSON."""
    import numpy as np

    from harness.report.figures import as_svg, new_figure
    from harness.report.terminal import si

    figure, first = new_figure(height=6.4)
    first.remove()
    above, below = figure.subplots(2, 1, height_ratios=[2, 1])
    for axes in (above, below):
        axes.grid(True, which="major", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    flops = [at["flops"] for at in way]
    low, high = zip(*(at["interval"] for at in way), strict=True)
    level, target = f"{forecast['level']:.0%}", forecast["target"]
    points = above.scatter(
        observations.flops, observations.loss, c=np.log10(observations.params), cmap="viridis", s=16, zorder=2
    )
    bar = figure.colorbar(points, ax=above)
    bar.set_label(f"log10 params ({forecast['conventions']['params']})", fontsize=8)
    above.fill_between(flops, low, high, alpha=0.2, color="grey", lw=0, label=f"ensemble, {level} interval")
    per_param = target["tokens"] / target["params"]
    line = f"ensemble at {per_param:.3g} tokens per parameter"
    above.plot(flops, [at["loss"] for at in way], "-", color="black", lw=1, label=line)
    ends = forecast["interval"]
    reach = [[forecast["loss"] - ends[0]], [ends[1] - forecast["loss"]]]
    label = f"bet: {si(target['params'])} parameters, {si(target['tokens'])} tokens"
    above.errorbar(
        [target["flops"]], [forecast["loss"]], yerr=reach, fmt="D", color="crimson", capsize=4, label=label
    )
    above.set(xscale="log", xlabel="training FLOPs", ylabel=f"loss ({forecast['conventions']['loss']})")
    above.legend(fontsize=8)
    cases = forecast["backtest"]["cases"]
    below.plot([case["ratio"] for case in cases], [100 * case["error"] for case in cases], "o", ms=3)
    below.axhline(0, color="grey", lw=0.8)
    below.axvline(forecast["extrapolation_ratio"], color="crimson", lw=1, label="the bet's ratio")
    below.set_yscale("symlog", linthresh=1.0)  # a run trained badly misses by tens of percent
    below.set(
        xscale="log", xlabel="FLOPs of a run held out over the largest fitted", ylabel="held-out error, %"
    )
    below.legend(fontsize=8)
    return as_svg(figure, command)
