"""Every law whose response is not the loss against N and D, by name. To add one: a module, a line here."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import WrongInput
from harness.laws.config import OF_SCHEDULES, FitConfig, IntervalMethod, LawName
from harness.laws.responses.coverage import fit_coverage
from harness.laws.responses.downstream import fit_downstream, fit_downstream_error
from harness.laws.responses.optima import NoLaw, fit_batch_size, fit_learning_rate
from harness.laws.responses.progress import fit_progress
from harness.laws.responses.result import ResponseFit
from harness.laws.responses.reward import fit_reward
from harness.laws.responses.schedules import RunChoice, fit_schedule_law
from harness.laws.responses.source import Source

RESPONSE_LAWS: dict[LawName, Callable[[Source, FitConfig], ResponseFit | NoLaw]] = {
    LawName.downstream: fit_downstream,
    LawName.downstream_error: fit_downstream_error,
    LawName.coverage: fit_coverage,
    LawName.reward: fit_reward,
    LawName.learning_rate: fit_learning_rate,
    LawName.batch_size: fit_batch_size,
    LawName.progress: fit_progress,
    LawName.tissue: fit_schedule_law,
    LawName.multi_power: fit_schedule_law,
}


def fit_response_law(
    source: Source, config: FitConfig, checkpoints: Source | None = None, choice: RunChoice | None = None
) -> ResponseFit | NoLaw:
    """`choice` is read by laws of schedules. Raises WrongInput for `checkpoints` of a law that has no use for
    them, or profile intervals."""
    if config.intervals is IntervalMethod.profile:
        raise WrongInput(
            f"fit.intervals=profile: law={config.law.name.value} resamples its steps together; "
            "use fit.intervals=bootstrap"
        )
    if checkpoints is None and config.law.name in OF_SCHEDULES:
        return fit_schedule_law(source, config, choice)
    if checkpoints is None:
        return RESPONSE_LAWS[config.law.name](source, config)
    if config.law.name is not LawName.downstream:
        raise WrongInput(f"checkpoints= is for law=downstream, not for law={config.law.name.value}")
    return fit_downstream(source, config, checkpoints)
