"""The figure of a replayed choice of runs: how near the full table's bet a share of its compute comes."""

from __future__ import annotations

from typing import Any

ORDERS = {"design": "black", "random": "tab:orange", "grid": "tab:blue"}
NAMES = {"design": "by design", "random": "at random", "grid": "cheapest first"}


def replay_figure(found: dict[str, Any], command: str) -> str:
    """SVG of a replay's JSON. Left: distance to the full table's bet, a band from the least to the most over
    seeds; right: error of the runs held out. Both beside the full table's own."""
    from harness.report.figures import as_svg, new_figure

    figure, first = new_figure(height=3.6)
    first.remove()
    near, right = figure.subplots(1, 2, sharex=True)
    for order, colour in ORDERS.items():
        mine = [at for at in found["summary"] if at["order"] == order]
        shares = [100 * at["share"] for at in mine]
        low, high = zip(*(at["distance_range"] for at in mine), strict=True)
        near.fill_between(shares, percent(low), percent(high), color=colour, alpha=0.12, lw=0)
        near.plot(shares, percent([at["distance"] for at in mine]), "o-", color=colour, label=NAMES[order])
        right.plot(shares, percent([at["error"] for at in mine]), "o-", color=colour)
    near.axhline(100 * found["full_noise"], color="grey", ls=":", label="nine in ten resamples of all runs")
    right.axhline(100 * found["full_error"], color="grey", ls="--", label="all runs")
    for axes, what in ((near, "from the full table's bet, %"), (right, "error of the runs held out, %")):
        axes.set(xscale="log", yscale="log", xlabel="share of the table's FLOPs, %", ylabel=what)
        axes.set_xticks(shares, [f"{share:g}" for share in shares], minor=False)
        axes.minorticks_off()
        axes.grid(True, which="major", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7)
    return as_svg(figure, command)


def percent(values: Any) -> list[float]:
    return [100 * value for value in values]
