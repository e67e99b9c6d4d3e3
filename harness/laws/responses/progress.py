"""How much further a year of better algorithms makes compute go, from models of many years."""

from __future__ import annotations

from typing import Any

from harness.laws.bootstrap import Interval, finite, interval
from harness.laws.config import FitConfig, LawName
from harness.laws.forms.progress import FIRST_YEAR, PROGRESS, doubling_months
from harness.laws.objective import objective_of
from harness.laws.responses.resample import resample
from harness.laws.responses.result import ResponseFit, bootstrap_json
from harness.laws.responses.source import Source
from harness.laws.responses.step import fit_step
from harness.laws.surfaces import Floats


def fit_progress(source: Source, config: FitConfig) -> ResponseFit:
    """From rows (params, tokens, year, loss) of one benchmark; the year with its fraction."""
    size = f"params_{config.params.value}"
    table = source.read(size, "tokens", "year", "loss")
    columns = {"params": table.values[size], "tokens": table.values["tokens"], "year": table.values["year"]}
    step = fit_step(PROGRESS, columns, table.values["loss"], objective_of(config.law))
    replicates = resample((step,), config)
    return ResponseFit(
        law=LawName.progress,
        response="loss",
        steps=(step,),
        replicates=replicates,
        conventions={"params": config.params.value, "year": f"since {FIRST_YEAR:g}"},
        table=table,
        level=config.level,
        bootstrap=bootstrap_json(config, len(table)),
        details={"doubling_months": doubling_json(step.params, replicates[0], config.level)},
    )


def doubling_json(params: dict[str, float], replicates: Floats, level: float) -> dict[str, Any]:
    """Months in which algorithms double effective compute, with the interval over resamples."""
    import numpy as np

    found: Interval | None = None
    if len(replicates):
        each = [doubling_months(dict(zip(PROGRESS.names, row, strict=True))) for row in replicates.tolist()]
        found = interval(np.array(each), level)
    return {"value": finite(doubling_months(params)), "interval": found}
