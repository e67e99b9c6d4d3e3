"""The coordinate check and the weights' rules, as tables and a figure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.parametrization import WeightRule
from harness.report.terminal import print_lines, print_table
from harness.training.coordinates import FLAT, STEPS, Axis, CoordinateCheck, Moment, Quantity, Trend

VERDICT = {True: "flat", False: "not flat", None: "-"}
MOMENT = {Moment.start: "at the start", Moment.end: f"after {STEPS} steps", Moment.change: "change"}


def print_check(check: CoordinateCheck) -> None:
    for axis in Axis:
        along = [trend for trend in check.trends if trend.axis is axis]
        sizes = [f"{axis.value} {size}" for size in along[0].sizes]
        print_table(
            f"{check.parametrization}: root mean squares of activations over {axis.value}",
            ("quantity", "", *sizes, "exponent", "verdict"),
            [trend_row(trend) for trend in along],
        )
    for axis in Axis:
        print_lines(f"over {axis.value}: {VERDICT[check.flat(axis)]}")
    print_lines(f"flat: an exponent within {FLAT} of zero; at the start nothing is asked (see README)")


def trend_row(trend: Trend) -> tuple[str, ...]:
    return (
        trend.quantity.value,
        MOMENT[trend.moment],
        *(f"{value:.3g}" for value in trend.values),
        f"{trend.exponent:+.2f}",
        VERDICT[trend.flat],
    )


def check_figure(check: CoordinateCheck) -> str:
    """SVG: what the steps changed, against width and against depth, one line a quantity."""
    from matplotlib import pyplot

    from harness.report.figures import as_svg, colours

    figure, panels = pyplot.subplots(1, len(Axis), figsize=(7.5, 3.4), layout="constrained", sharey=True)
    for axes, axis in zip(panels, Axis, strict=True):
        for colour, quantity in zip(colours(len(Quantity)), Quantity, strict=True):
            trend = find(check.trends, axis, quantity)
            label = f"{quantity.value}: {trend.exponent:+.2f}"
            axes.plot(trend.sizes, trend.values, "o-", color=colour, ms=4, lw=1, label=label)
        axes.set(xscale="log", yscale="log", xlabel=axis.value)
        axes.set_xticks(trend.sizes, [str(size) for size in trend.sizes], minor=False)
        axes.minorticks_off()
        axes.grid(True, alpha=0.25)
        axes.legend(title="exponent", fontsize=7, title_fontsize=7)
    panels[0].set_ylabel(f"change after {STEPS} steps (RMS)")
    figure.suptitle(f"coordinate check, {check.parametrization}", fontsize=10)
    return as_svg(figure)


def find(trends: Sequence[Trend], axis: Axis, quantity: Quantity) -> Trend:
    return next(t for t in trends if (t.axis, t.quantity, t.moment) == (axis, quantity, Moment.change))


def print_weights(title: str, rules: Sequence[WeightRule], scales: Sequence[str]) -> None:
    columns = ("weight", "kind", "shape", "init std", "lr", "weight decay", "eps")
    print_table(title, columns, [weight_row(rule) for rule in rules])
    print_lines(*scales)


def weight_row(rule: WeightRule) -> tuple[str, ...]:
    by = rule.multipliers
    return (
        rule.name,
        rule.kind.value,
        " x ".join(map(str, rule.shape)),
        "ones" if rule.init_std is None else f"{rule.init_std:.3g}",
        f"{rule.lr:.3g} ({by.lr:.3g}x)",
        f"{rule.weight_decay:.3g} ({by.weight_decay:.3g}x)" if rule.weight_decay else "-",
        f"{rule.eps:.3g} ({by.eps:.3g}x)",
    )
