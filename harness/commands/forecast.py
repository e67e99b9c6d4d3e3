"""Predict the loss of a larger run, with an interval, and seal the prediction before the run.

    harness forecast experiment=demo_frontier          of the run that `harness train` would do
    harness forecast runs=runs/demo model=620k horizon.tokens=8_000_000 group=bet
    harness forecast runs=table.csv params=7e9 tokens=1.4e11
    harness forecast runs=table.csv flops=1e24         at the compute-optimal allocation
    harness forecast runs=table.csv flops=1e24 hardware=h100 cost.mfu=0.4 cost.price_per_device_hour=2
    harness forecast runs=table.csv params=7e9 tokens=1.4e11 seal=bet.json format=json
    harness forecast runs=table.csv flops=1e24 figure=bet.svg
    harness forecast runs=table.csv params=7e9 tokens=1.4e11 unique_tokens=5e10    it sees its data 2.8 times

Of runs on one line of (N, D), five budgets or more of a ladder at 20 tokens a parameter for instance, the bet
is along that line: flops= is spent as the line has it, and the best size is not said.

The seal goes to runs/<group>/forecast.json, or to seal=FILE. A seal is never replaced, and none is made
once the run has begun; typed again, the command shows it, and says when its runs have changed. `figure` draws
the runs, the way of the ensemble from them to the bet, and its errors on runs held out. Exit code 1 when the
sweep does not support a bet, with the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.commands.bets import observe_bet, saying_refused
from harness.commands.cells import own_cell
from harness.commands.figures import figure_line, typed, write_figure
from harness.commands.observe import observe, params_kind, runs_path
from harness.commands.root import Experiment, Format
from harness.commands.trajectories import loss_curves
from harness.config import task_overrides, verb
from harness.data.prepare import find
from harness.errors import CannotAnswer, HarnessError, WrongInput
from harness.forecast.allocation import best_allocation
from harness.forecast.engine import Engine, Target, build_engine
from harness.forecast.gate import Verdict
from harness.forecast.predict import bet_on, way_to
from harness.forecast.seal import SealedForecast, open_seal, seal
from harness.laws.config import FlopsKind, ParamsKind
from harness.laws.conventions import token_cost
from harness.laws.observations import Observations
from harness.report.bet import bet_figure
from harness.report.fits import print_forecast
from harness.report.terminal import print_json, print_lines
from harness.runs import RunDirectory, Status
from harness.sweep.estimate import SECONDS_PER_HOUR
from harness.training.cell import Cell

SEAL = "forecast.json"
NUMBERS = ("params", "tokens", "flops")


@dataclass(kw_only=True)
class Settings(Experiment):
    params: float | None = None
    tokens: float | None = None
    flops: float | None = None
    unique_tokens: float | None = None
    seal: str | None = None
    figure: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*NUMBERS, "unique_tokens"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} must be a positive number")


@verb("forecast", Settings)
def main(settings: Settings) -> None:
    refuse_law(task_overrides())
    cell = None if asks_numbers(settings) else own_cell(settings)
    path = seal_path(settings, cell)
    if path is not None and path.exists():
        show_sealed(settings, open_seal(path), cell)
        return
    if cell is not None and RunDirectory(settings.folder / cell.run_id).status() is not Status.planned:
        raise CannotAnswer(
            f"{cell.run_id} has already begun and no forecast was sealed before; bet on another run"
        )
    with saying_refused(settings):
        observations = observe_bet(settings, params_kind(settings))
        engine = build_engine(observations, settings.forecast)
        target = numbers_target(settings, engine) if cell is None else cell_target(cell, observations)
        curves = loss_curves(runs_path(settings))
        unique = unique_tokens(settings, cell, observations)
        forecast = bet_on(engine, target, other_convention(settings, cell), curves, unique)
    result = with_cost(settings, forecast.to_json())
    if forecast.verdict is Verdict.refused:
        if settings.format is Format.json:
            print_json(result)
        raise CannotAnswer(f"no forecast: {'; '.join(forecast.reasons)}")
    if settings.figure:
        result["figure"] = draw(settings, engine, target, result)
    sealed = seal(path, forecast) if path is not None else None
    show(settings, result, sealed)


def refuse_law(typed: Sequence[str]) -> None:
    """Raises WrongInput when one law was asked for: the bet is on the ensemble."""
    if named := [word for word in typed if word.startswith(("law=", "fit.law"))]:
        raise WrongInput(
            f"{named[0]}: a forecast weighs several laws by their backtest, and shows each; "
            "leave it out, or use harness fit for one law"
        )


def asks_numbers(settings: Settings) -> bool:
    """Whether the bet is on bare numbers rather than on a run. Raises WrongInput on half an answer."""
    given = {name for name in NUMBERS if getattr(settings, name) is not None}
    if not given:
        return False
    if given not in ({"flops"}, {"params", "tokens"}):
        raise WrongInput(
            f"give flops=, or params= and tokens=, or neither; not {' and '.join(sorted(given))}"
        )
    return True


def numbers_target(settings: Settings, engine: Engine) -> Target:
    """The bare numbers, bound to the corpus and tokenizer of the runs where those are known."""
    params, tokens, observations = settings.params, settings.tokens, engine.observations
    if settings.flops is not None:
        params, tokens = allocated(engine, settings.flops)
    assert params is not None and tokens is not None  # `asks_numbers` saw to it
    flops = settings.flops
    if flops is None and engine.ladder is not None:
        flops = engine.ladder.flops_of(params, tokens)
    return Target(
        params=params,
        tokens=tokens,
        flops=flops,
        corpus_hash=observations.corpus_hashes[0],
        tokenizer_hash=observations.tokenizer_hashes[0],
    )


def allocated(engine: Engine, flops: float) -> tuple[float, float]:
    """Parameters and tokens that minimise the loss of the ensemble at `flops`; of runs on one line those
    that the line has there."""
    if engine.ladder is not None:
        return engine.ladder.at(flops)
    ensemble = engine.weighed(flops / float(engine.observations.flops.max()))
    best = best_allocation(ensemble, flops, token_cost(engine.observations, FlopsKind.auto))
    return best.params, best.tokens


def with_cost(settings: Settings, forecast: dict[str, Any]) -> dict[str, Any]:
    """The forecast with what its run costs, and what of that the wrong law would waste."""
    cost, regret = device_cost(settings, forecast["target"]["flops"]), forecast.get("regret")
    if regret is not None:
        wasted = None if cost["money"] is None else regret["compute_share"] * cost["money"]
        regret = {**regret, "money": wasted}
    return {**forecast, "regret": regret, "cost": cost}


def device_cost(settings: Settings, flops: float) -> dict[str, Any]:
    """Device-hours and money of the bet at the stated MFU; None, with what to give, where not known."""
    peak, mfu, price = settings.hardware.peak_flops, settings.cost.mfu, settings.cost.price_per_device_hour
    hours = flops / (peak * mfu) / SECONDS_PER_HOUR if peak and mfu else None
    missing = [
        hint
        for known, hint in (
            (peak, "hardware=h100 or hardware.peak_flops=FLOP_PER_SECOND"),
            (mfu, "cost.mfu=SHARE"),
            (price is not None, "cost.price_per_device_hour=PRICE"),
        )
        if not known
    ]
    return {
        "device_hours": hours,
        "money": None if hours is None or price is None else hours * price,
        "currency": settings.cost.currency,
        "to_know": missing,
    }


def unique_tokens(settings: Settings, cell: Cell | None, observations: Observations) -> float | None:
    """What the bet may see without repetition: as it was told, else the run's own prepared corpus, of which
    there is at least as much as its runs have seen."""
    if settings.unique_tokens is not None or cell is None:
        return settings.unique_tokens
    there = find(settings.corpus, settings.tokenizer, Path(settings.data_dir)).train_tokens
    seen = 0.0 if observations.unique_tokens is None else float(observations.unique_tokens.max())
    return max(float(there), seen)


def cell_target(cell: Cell, observations: Observations) -> Target:
    return Target(
        params=getattr(cell.shape.params, observations.params_kind.value),
        tokens=cell.horizon.tokens,
        flops=cell.flops,
        run_id=cell.run_id,
        corpus_hash=cell.corpus_hash,
        tokenizer_hash=cell.tokenizer_hash,
    )


def other_convention(settings: Settings, cell: Cell | None) -> tuple[Observations, Target] | None:
    """The same sweep and run with N counted the other way; a table need not hold it."""
    if cell is None:
        return None
    total = params_kind(settings) is ParamsKind.total
    observations = observe(settings, ParamsKind.non_embedding if total else ParamsKind.total)
    return observations, cell_target(cell, observations)


def seal_path(settings: Settings, cell: Cell | None) -> Path | None:
    if settings.seal is not None:
        return Path(settings.seal)
    return None if cell is None else settings.folder / SEAL


def show_sealed(settings: Settings, sealed: SealedForecast, cell: Cell | None) -> None:
    """A bet already made is shown, not made again; it must be this bet."""
    target = sealed.target
    asked = {"run_id": cell.run_id} if cell else {name: getattr(settings, name) for name in NUMBERS}
    if other := [name for name, value in asked.items() if value is not None and target[name] != value]:
        raise CannotAnswer(
            f"{sealed.path} is sealed for another bet ({other[0]} {target[other[0]]}, "
            f"not {asked[other[0]]}); choose another group= or seal="
        )
    result, (rows, changed) = with_cost(settings, sealed.forecast), rows_now(settings, sealed)
    if settings.figure:
        if rows is None or changed:
            raise CannotAnswer(f"figure={settings.figure}: {changed}; a figure shows the runs of its bet")
        names = [field.name for field in fields(Target)]
        bet = Target(**{name: target[name] for name in names})
        result["figure"] = draw(settings, build_engine(rows, settings.forecast), bet, result)
    show(settings, result, sealed, changed)


def rows_now(settings: Settings, sealed: SealedForecast) -> tuple[Observations | None, str]:
    """The rows as they are now, where they can be read, and in what they are not those of the seal."""
    try:
        rows = observe_bet(settings, params_kind(settings))
    except HarnessError as error:
        return None, f"its runs cannot be read to compare them: {error}"
    counted = sealed.forecast["conventions"]
    if other := [name for name, value in rows.conventions.items() if counted.get(name) != value]:
        return None, f"its runs cannot be compared: they were counted otherwise ({', '.join(other)})"
    found, then = rows.data_hash(), sealed.forecast["data_hash"]
    if found == then:
        return rows, ""
    return rows, (
        f"the runs are not those it was sealed from (data {found[:12]}, then {then[:12]}): they, or what is "
        "chosen from them, have changed since"
    )


def draw(settings: Settings, engine: Engine, target: Target, forecast: dict[str, Any]) -> dict[str, Any]:
    command = typed("forecast")
    svg = bet_figure(engine.observations, forecast, way_to(engine, target), command)
    return write_figure(str(settings.figure), svg, command)


def show(settings: Settings, forecast: dict, sealed: SealedForecast | None, changed: str = "") -> None:
    """`changed` says in what the runs are not those of the seal."""
    if settings.format is Format.json:
        seal_facts = None
        if sealed is not None:
            seal_facts = {
                "path": str(sealed.path),
                "sha256": sealed.sha256,
                "at": sealed.sealed_at.isoformat(),
                "changed": changed or None,
            }
        print_json({**forecast, "seal": seal_facts})
    else:
        print_forecast(forecast, sealed)
        if changed:
            print_lines(f"note: {changed}; the seal stands as it was made")
        if "figure" in forecast:
            print_lines(figure_line(forecast["figure"]))
