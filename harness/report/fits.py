"""Fits, forecasts and scores as a person reads them. Constants are rounded here and only here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.report.terminal import counted, print_lines, print_table, si

if TYPE_CHECKING:
    from harness.forecast.score import Score
    from harness.forecast.seal import SealedForecast


def span(interval: Sequence[float | None] | None, form: str = ".4g") -> str:
    """An interval; an open end is said so."""
    if interval is None:
        return "-"
    low, high = (format(end, form) if end is not None else "open" for end in interval)
    return f"[{low}, {high}]"


def print_fit(result: dict[str, Any]) -> None:
    intervals = result["intervals"]
    rows = [(name, f"{value:.6g}", span(intervals.get(name))) for name, value in result["params"].items()]
    rows.append(("exponent a", number(result["exponent_a"]), span(intervals.get("exponent_a"))))
    level = f"{result['level']:.0%} interval ({result['interval_method']})"
    print_table(f"{result['law']}: {result['status']}", ("parameter", "value", level), rows)
    if result["optimum"]:
        optima = [row for optimum in result["optimum"] for row in optimum_rows(optimum)]
        convention = result["conventions"]["flops_of_optimum"]
        print_table(f"compute-optimal allocation, FLOPs {convention}", OPTIMUM, optima)
        print_lines(*(f"{o['flops']:.3g} FLOPs: {o['reason']}" for o in result["optimum"] if "reason" in o))
    for point in result.get("frontier", ()):
        loss = f"{point['loss']:.4f}, interval {span(loss_of(point['interval']))}"
        print_lines(f"best loss at {point['flops']:.3g} FLOPs: {loss}")
    if result["predictions"]:
        points = [prediction_row(point) for point in result["predictions"]]
        print_table("the loss at", ("params", "tokens", "loss", "loss interval", "of one run"), points)
    conventions = ", ".join(f"{name}: {value}" for name, value in result["conventions"].items())
    print_lines(
        f"{result['n']} runs, objective {result['objective']:.8g}, "
        f"residual {result['residual_rms']:.2%} rms in log loss",
        *noise_lines(result["seed_noise"]),
        f"conventions: {conventions}; data {result['data_hash'][:12]}",
        *dropped_lines(result["dropped"]),
        *(f"note: {note}" for note in result["notes"]),
    )


def dropped_lines(dropped: Sequence[dict[str, Any]]) -> list[str]:
    return [f"dropped {item['count']}: {item['reason']}" for item in dropped]


def noise_lines(noise: dict[str, Any] | None) -> list[str]:
    if noise is None:
        return []
    repeats = f"{noise['degrees_of_freedom']} repeats"
    return [f"noise of one run: {noise['std']:.2%} of the loss ({repeats}; seeds of {noise['of']})"]


OPTIMUM = ("FLOPs", "params", "tokens", "tokens/param", "loss", "loss of one run")


def loss_of(interval: dict[str, Any] | None, name: str = "loss") -> Sequence[float | None] | None:
    return interval[name] if interval else None


def prediction_row(point: dict[str, Any]) -> tuple[str, ...]:
    spans = (span(loss_of(point["interval"], name)) for name in ("loss", "loss_one_run"))
    return (si(point["params"]), si(point["tokens"]), f"{point['loss']:.4f}", *spans)


def optimum_rows(optimum: dict[str, Any]) -> list[tuple[str, ...]]:
    """The figures, and under them their intervals."""
    flops = f"{optimum['flops']:.3g}"
    if optimum["params"] is None:
        return [(flops, *["-"] * (len(OPTIMUM) - 1))]
    counts, ratio = (si(optimum["params"]), si(optimum["tokens"])), f"{optimum['tokens_per_param']:.3g}"
    figures = (flops, *counts, ratio, f"{optimum['loss']:.4f}", "")
    if (interval := optimum["interval"]) is None:
        return [figures]
    sizes = (count_span(interval[name]) for name in ("params", "tokens"))
    losses = (span(interval[name]) for name in ("loss", "loss_one_run"))
    return [figures, ("", *sizes, span(interval["tokens_per_param"], ".3g"), *losses)]


def count_span(interval: Sequence[float | None]) -> str:
    low, high = (si(end) if end is not None else "open" for end in interval)
    return f"[{low}, {high}]"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def print_forecast(forecast: dict[str, Any], sealed: SealedForecast | None) -> None:
    target, (low, high) = forecast["target"], forecast["interval"]
    print_lines(
        f"forecast for {target['run_id'] or 'these numbers'}: "
        f"{si(target['params'])} parameters ({forecast['conventions']['params']}), "
        f"{si(target['tokens'])} tokens, {target['flops']:.3g} FLOPs, "
        f"{forecast['extrapolation_ratio']:.1f}x the largest run",
        f"loss {forecast['loss']:.4f}, {forecast['level']:.0%} interval [{low:.4f}, {high:.4f}] "
        f"({forecast['conventions']['loss']})",
        f"verdict: {forecast['verdict']}",
        *(f"- {reason}" for reason in forecast["reasons"]),
    )
    if laws := forecast.get("laws"):  # an older seal lacks them
        print_table("the laws behind it", LAWS, [law_row(law) for law in laws])
    print_lines(*bet_lines(forecast), *dropped_lines(forecast["fit"]["dropped"]))
    if sealed is not None:
        print_lines(f"sealed at {sealed.sealed_at.isoformat()} in {sealed.path}, sha256 {sealed.sha256[:16]}")


LAWS = ("law", "weight", "loss", "its own interval", "N*", "D*", "D*/N*")


def law_row(law: dict[str, Any]) -> tuple[str, ...]:
    spent = ("-", "-", "-")
    if law["params"]:
        spent = (si(law["params"]), si(law["tokens"]), f"{law['tokens_per_param']:.3g}")
    return (law["law"], f"{law['weight']:.2f}", f"{law['loss']:.4f}", span(law["interval"], ".4f"), *spent)


def bet_lines(forecast: dict[str, Any]) -> Iterator[str]:
    """The allocation, the cost, the regret and the record; an older seal may lack them."""
    if line := forecast.get("ladder"):
        yield (
            f"the {line['rungs']} budgets of the runs lie on one line of (N, D), and so does the bet; "
            "which size spends its compute best they do not say"
        )
    if best := forecast.get("optimum"):
        sizes, ratios = best["params_range_over_laws"], best["tokens_per_param_range_over_laws"]
        yield (
            f"this compute is best spent on {si(best['params'])} parameters and {si(best['tokens'])} tokens: "
            f"{best['tokens_per_param']:.3g} tokens per parameter, loss {best['loss']:.4f} "
            f"(over the laws {count_span(sizes)} and {span(ratios, '.3g')}; FLOPs {best['flops_convention']})"
        )
    cost = forecast.get("cost") or {}
    hours, money = cost.get("device_hours"), cost.get("money")
    if hours is not None:
        yield f"cost: {amount(hours)} device-hours{price(money, cost)}"
    if missing := cost.get("to_know"):
        known = "its cost is unknown" if hours is None else "its price is unknown"
        yield f"{known}; give {', '.join(missing)}"
    if lost := forecast.get("regret"):
        yield (
            f"sized by the runner-up ({lost['chosen']}) when {lost['true']} is right: "
            f"loss +{lost['loss']:.4f}, "
            f"{lost['compute_share']:.1%} of the compute wasted{price(lost['money'], cost)}"
        )
    if record := forecast["backtest"].get("record"):
        shown = "; ".join(record_at(at) for at in record)
        yield f"such forecasts inside these runs: {shown}"


def amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def price(money: float | None, cost: dict[str, Any]) -> str:
    return "" if money is None else f", {amount(money)} {cost['currency']}"


def record_at(at: dict[str, Any]) -> str:
    if not at["cases"]:
        return f"{at['ratio']:g}x not covered"
    runs = counted(at["cases"], "run")
    return f"{at['ratio']:g}x median error {at['error_median']:.2%}, bias {at['bias']:+.2%} ({runs})"


def print_score(result: Score, sealed: SealedForecast) -> None:
    low, high = result.interval
    order = {True: "before the run began", False: "AFTER the run began", None: "at an unknown time"}
    print_lines(
        f"run {result.run_id}",
        f"predicted {result.predicted:.4f}, {result.level:.0%} interval [{low:.4f}, {high:.4f}]",
        f"actual    {result.actual:.4f}, {'inside' if result.inside else 'OUTSIDE'} the interval",
        f"error     {result.error:+.2%}",
        f"sealed    {sealed.sealed_at.isoformat()}, {order[result.started_after_seal]}; seal intact",
    )


def print_record_of_scores(summary: dict[str, Any]) -> None:
    """What all forecasts ever scored say of the forecaster."""
    print_lines(
        f"record    {summary['scored']} scored, {summary['coverage']:.0%} inside their "
        f"{summary['level']:.0%} intervals, bias {summary['bias']:+.2%}, "
        f"median |error| {summary['error_median']:.2%}, {summary['too_high']} too high"
    )
