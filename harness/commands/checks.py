"""What `harness train check=...` shows instead of training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum

from harness.budget import HorizonConfig
from harness.commands.cells import own_cell
from harness.commands.root import Experiment, Format
from harness.model.parametrization import parametrize
from harness.report.coordinates import check_figure, print_check, print_weights
from harness.report.terminal import print_json, print_lines
from harness.runs import write_json, write_text
from harness.shape import ModelConfig
from harness.training.cell import Cell
from harness.training.coordinates import (
    SEEDS,
    STEPS,
    Axis,
    CoordinateCheck,
    shapes_to_check,
    sizes_of,
    trends,
)


class Check(Enum):
    coordinates = "coordinates"
    groups = "groups"


def check_coordinates(settings: Experiment, widths: Sequence[int], depths: Sequence[int]) -> None:
    """Measure, show, and leave the figure and the numbers beside the experiment's runs."""
    check = coordinate_check(settings, widths, depths)
    stem = settings.folder / f"coordinates_{check.parametrization}"
    write_json(stem.with_suffix(".json"), check.to_json())
    write_text(stem.with_suffix(".svg"), check_figure(check))
    if settings.format is Format.json:
        print_json(check.to_json())
    else:
        print_check(check)
        print_lines(f"figure: {stem}.svg, numbers: {stem}.json")


def coordinate_check(settings: Experiment, widths: Sequence[int], depths: Sequence[int]) -> CoordinateCheck:
    from harness.training.probe import readings
    from harness.training.run import set_threads

    set_threads(settings.hardware, None)
    model = settings.model
    models = shapes_to_check(
        model, sizes_of(model.width, widths, Axis.width), sizes_of(model.depth, depths, Axis.depth)
    )
    found = []
    for number, one in enumerate(models, start=1):
        print(f"{number} of {len(models)}: width {one.width}, depth {one.depth}", file=sys.stderr)
        for seed in range(settings.seed, settings.seed + SEEDS):
            found += readings(short_cell(settings, one, seed))
    return CoordinateCheck(
        parametrization=settings.parametrization.kind.value,
        model=model.name,
        lr=settings.optim.lr,
        readings=tuple(found),
        trends=trends(found),
    )


def short_cell(settings: Experiment, model: ModelConfig, seed: int) -> Cell:
    """These settings for a few steps of `model`."""
    batch = settings.horizon.batch_tokens
    horizon = HorizonConfig(batch_tokens=batch, tokens=STEPS * batch)
    return own_cell(replace(settings, model=model, horizon=horizon, seed=seed))


def check_groups(settings: Experiment) -> None:
    """Every weight's kind, start and optimizer settings."""
    from harness.training.groups import weight_rules

    cell = short_cell(settings, settings.model, settings.seed)
    rules, scales = weight_rules(cell), parametrize(settings.parametrization, cell.shape)
    if settings.format is Format.json:
        forward = {"logits": scales.readout, "residual": scales.residual, "attention": scales.attention}
        weights = [{**asdict(rule), "kind": rule.kind.value} for rule in rules]
        multipliers = {"width": scales.width_multiplier, "depth": scales.depth_multiplier}
        print_json({"multipliers": multipliers, "scales": forward, "weights": weights})
        return
    print_weights(
        f"{settings.model.name}, {settings.parametrization.kind.value}: width {scales.width_multiplier:.4g} "
        f"and depth {scales.depth_multiplier:.4g} times the base's",
        rules,
        [
            f"logits x {scales.readout:.4g}, residual branches x {scales.residual:.4g}, "
            f"attention scores x {scales.attention:.4g}"
        ],
    )
