"""Fit a scaling law to finished runs or to a table of runs.

    harness fit experiment=demo
    harness fit runs=runs/demo fit.params=non_embedding
    harness fit runs=table.csv 'where=["group=rpj","loss<3.5"]' law=skaling
    harness fit runs=table.csv best_of=cell            the best run of each (params, tokens)
    harness fit runs=table.csv flops=[1e21,1e24] format=json
    harness fit runs=table.csv 'at=[[7e9,1.4e11]]'     the loss of 7B parameters after 140B tokens
    harness fit runs=table.csv fit.intervals=profile   by the likelihood instead of the bootstrap
    harness fit runs=table.csv fit.bootstraps=4000 fit.law.delta=1e-3
    harness fit runs=table.csv law=overtrain fit.law.loss=least_squares_loss    of L, not of ln L
    harness fit runs=table.csv law=bnsl 'columns={flops: examples}'    a law of compute needs no N and D
    harness fit runs=table.csv figure=fit.svg          loss against compute, and the law at every size
    harness fit runs=table.csv sensitivity=true flops=[1e24] figure=tornado.svg
    harness fit runs=table.csv approaches=true         envelope, isoFLOP parabolas and law side by side
    harness fit runs=table.csv checklist=true          what a reader must be told to redo the fit
    harness fit runs=runs/seeds seeds=true             how far seeds scatter the loss, and no law
    harness fit runs=runs/demo noise=runs/seeds        the noise of one run as measured there
    harness fit runs=runs/mine pooled=[schedule]       one law through runs of several schedules

Laws of other responses name the columns they read; `columns` maps them to the table's own, `at` asks for
predictions at rows of the law's inputs:

    law                        columns                                     inputs of at=
    downstream                 params_*, tokens, loss, accuracy            params, tokens
    downstream_error           params_*, tokens, loss, error               params, tokens
    coverage                   samples, coverage, or attempts, correct     samples
    reward                     compute, reward                             compute
    learning_rate, batch_size  params_*, tokens, lr, batch_tokens, loss    params, tokens; tokens
    progress                   params_*, tokens, year, loss                params, tokens, year
    tissue, multi_power        run_id, step, lr, loss                      none; see predict=

    harness fit law=downstream runs=t.csv 'columns={accuracy: acc_mmlu, loss: bpb_mmlu}' 'at=[[7e9,4e12]]'
    harness fit law=downstream runs=t.csv checkpoints=curves.csv    the second step sees every checkpoint
    harness fit law=learning_rate runs=runs/lr figure=lr.svg        the best rate of every rung, and their law
    harness fit law=reward runs=rl.csv 'columns={compute: gpu_hours}' fit.law.skip=1500 'at=[[16000]]'
    harness fit law=tissue runs=curves.csv 'curves=[a,b,c]' 'predict=[d]'    fit three runs, predict another

tissue and multi_power read curves under learning-rate schedules: `curves` names the runs to fit (all, when
not given), `predict` those to compare with the fitted law. The rate is interpolated between logged steps and
rises from zero at step 0 to the first of them; `where` leaves out losses, and no part of a schedule.

`sensitivity` refits under other conventions of N and C, loss functions, laws and rules for leaving out
rows, and compares the answers at the first of `flops` (by default 10 times the largest run).
Exit code 1 when a parameter is not identified; the numbers then come with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from harness.commands.figures import figure_line, typed, write_figure
from harness.commands.observe import observe, run_columns, runs_path
from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import CannotAnswer
from harness.laws.approaches.compare import compare, comparison_budgets, unanswered
from harness.laws.checklist import checklist, checklist_json
from harness.laws.config import OF_COMPUTE, OF_RUNGS, OF_SCHEDULES, OTHER_RESPONSES
from harness.laws.conventions import in_flops
from harness.laws.fit import Fit, FitStatus, fit_law
from harness.laws.forms.catalogue import FORMS
from harness.laws.intervals import check_points, fit_json
from harness.laws.observations import Observations
from harness.laws.seeds import noise_floor
from harness.laws.sensitivity import sensitivity
from harness.report.approaches import print_approaches
from harness.report.checklist import print_checklist
from harness.report.fits import print_fit
from harness.report.noise import print_noise
from harness.report.sensitivity import print_sensitivity, tornado_figure
from harness.report.terminal import StageProgress, print_json, print_lines


@dataclass(kw_only=True)
class Settings(Experiment):
    flops: list[float] = field(default_factory=list)
    at: list[list[Any]] = field(default_factory=list)
    checkpoints: str | None = None
    curves: list[str] = field(default_factory=list)
    predict: list[str] = field(default_factory=list)
    approaches: bool = False
    sensitivity: bool = False
    checklist: bool = False
    seeds: bool = False
    figure: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(isinstance(value, int | float) for row in self.at for value in row):
            raise ValueError(f"at={self.at} must be rows of numbers")
        if self.checkpoints and self.fit.law.name not in OTHER_RESPONSES:
            raise ValueError(f"law={self.fit.law.name.value} has no use for checkpoints=; see --help")
        law, of_schedules = self.fit.law.name.value, self.fit.law.name in OF_SCHEDULES
        if (self.curves or self.predict) and not of_schedules:
            raise ValueError(f"curves= and predict= are for law=tissue or multi_power, not for law={law}")
        if self.at and of_schedules:
            raise ValueError(f"law={law} reads a whole schedule, no row of at=; name runs in predict=")
        of_losses = self.approaches or self.sensitivity or self.checklist or self.seeds
        if of_losses and self.fit.law.name in OTHER_RESPONSES:
            what = "approaches=, sensitivity=, checklist= or seeds="
            raise ValueError(f"law={self.fit.law.name.value} has no use for {what}")
        undrawn = {*OTHER_RESPONSES, *OF_COMPUTE} - {*OF_RUNGS}
        if self.figure and (self.seeds or self.approaches or self.fit.law.name in undrawn):
            raise ValueError(
                f"figure= draws laws of params and tokens, sensitivity=true, law=learning_rate and "
                f"law=batch_size; not law={law}, seeds= or approaches="
            )
        if any(not (math.isfinite(budget) and budget > 0) for budget in self.flops):
            raise ValueError(f"flops={self.flops} must be positive numbers")


@verb("fit", Settings)
def main(settings: Settings) -> None:
    if settings.fit.law.name in OTHER_RESPONSES:
        from harness.commands.respond import respond

        respond(
            settings, settings.at, settings.checkpoints, settings.curves, settings.predict, settings.figure
        )
        return
    if settings.seeds:
        show_noise(settings)
        return
    check_points(FORMS[settings.fit.law.name.value], settings.at)
    of_compute = settings.fit.law.name in OF_COMPUTE and not settings.approaches
    observed = observe(settings, settings.fit.params, settings.fit.unit, of_compute)
    observations = in_flops(observed, settings.fit.flops)
    budgets = tuple(settings.flops)
    if settings.approaches:
        budgets = comparison_budgets(observations, budgets)
    fit = fit_law(observations, settings.fit.law, settings.fit.level)
    result = fit_json(observations, fit, settings.fit, budgets, settings.at)
    items = checklist(observations, fit, settings.fit, run_columns(settings, observations), settings.where)
    result["checklist"] = checklist_json(items)
    answers = compare(observations, result, settings.fit, budgets) if settings.approaches else ()
    if settings.approaches:
        result["approaches"] = [answer.to_json() for answer in answers]
    if settings.sensitivity:
        result["sensitivity"] = other_choices(settings, observations)
    if settings.figure:
        result["figure"] = draw(settings, observations, fit, result)
    if settings.format is Format.json:
        print_json(result)
    else:
        print_fit(result)
        if settings.approaches:
            print_approaches(answers, settings.fit.level)
        if settings.sensitivity:
            print_sensitivity(result["sensitivity"])
        if settings.checklist:
            print_checklist(items)
        if settings.figure:
            print_lines(figure_line(result["figure"]))
    if failed := unanswered(answers):
        raise CannotAnswer(failed)
    if fit.status is FitStatus.not_identified:
        raise CannotAnswer(f"the law is not identified: {'; '.join(fit.reasons)}")


def draw(settings: Settings, observations: Observations, fit: Fit, result: dict[str, Any]) -> dict[str, Any]:
    """What sensitivity found where it was asked for, else the law among its runs."""
    command = typed("fit")
    if settings.sensitivity:
        svg = tornado_figure(result["sensitivity"], command)
    else:
        from harness.report.figures import law_figure

        svg = law_figure(observations, fit, None, command)
    return write_figure(str(settings.figure), svg, command)


def show_noise(settings: Settings) -> None:
    """Raises CannotAnswer when no run was repeated."""
    observations = observe(settings, settings.fit.params, settings.fit.unit)
    floor = noise_floor(observations)
    if not floor.rungs:
        raise CannotAnswer(
            f"{runs_path(settings)}: no run was repeated with another seed; train repeats with sweep=seeds"
        )
    result = {**floor.to_json(settings.fit.level), "conventions": observations.conventions}
    if settings.format is Format.json:
        print_json(result)
    else:
        print_noise(result)


def other_choices(settings: Settings, observations: Observations) -> dict[str, Any]:
    """The answers under other choices."""
    target = settings.flops[0] if settings.flops else None
    with StageProgress() as progress:
        return sensitivity(
            observations,
            settings.fit,
            target,
            lambda kind, unit: observe(settings, kind, unit),
            progress.update,
        ).to_json()
