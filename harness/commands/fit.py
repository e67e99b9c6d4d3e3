"""Fit a scaling law to finished runs or to a table of runs.

    harness fit experiment=demo
    harness fit runs=runs/demo fit.params=non_embedding
    harness fit runs=table.csv 'where=["group=rpj","loss<3.5"]' law=skaling
    harness fit runs=table.csv best_of=cell            the best run of each (params, tokens)
    harness fit runs=table.csv flops=[1e21,1e24] format=json
    harness fit runs=table.csv fit.bootstraps=4000 fit.law.delta=1e-3

Exit code 1 when a parameter is not identified; the numbers then come with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from harness.commands.observe import observe
from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import CannotAnswer
from harness.laws.bootstrap import fit_json
from harness.laws.fit import Fit, FitStatus, fit_law
from harness.laws.forms.catalogue import FORMS
from harness.laws.forms.fit import FormFit
from harness.laws.forms.observed import fit_observed, form_json
from harness.report.fits import print_fit
from harness.report.terminal import print_json


@dataclass(kw_only=True)
class Settings(Experiment):
    flops: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not (math.isfinite(budget) and budget > 0) for budget in self.flops):
            raise ValueError(f"flops={self.flops} must be positive numbers")


@verb("fit", Settings)
def main(settings: Settings) -> None:
    observations = observe(settings, settings.fit.params)
    form = FORMS.get(settings.fit.law.name.value)
    fit: Fit | FormFit
    if form is None:
        fit = fit_law(observations, settings.fit.law, settings.fit.level)
        result = fit_json(observations, fit, settings.fit, tuple(settings.flops))
    else:
        fit = fit_observed(observations, form, settings.fit.law)
        result = form_json(observations, fit, settings.fit, tuple(settings.flops))
    if settings.format is Format.json:
        print_json(result)
    else:
        print_fit(result)
    if fit.status is FitStatus.not_identified:
        raise CannotAnswer(f"the law is not identified: {'; '.join(fit.reasons)}")
