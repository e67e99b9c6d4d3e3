"""What a reader must be told to redo a fit, filled in from the runs and the settings.

The sections and most questions follow the reproducibility checklist of Li et al. 2502.18969, which found
that of 51 papers 29 state which checkpoints they used and 28 how they fitted. An answer that the runs do
not give reads `unknown:` and says which column or setting would give it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from harness.laws import newton
from harness.laws.alternatives import SAME_BUDGET
from harness.laws.collect import summary
from harness.laws.config import FitConfig, IntervalMethod, LawConfig, LossFunction, ParamsKind
from harness.laws.fit import Fit
from harness.laws.objective import objective_of
from harness.laws.observations import Observations, cells, levels
from harness.laws.seeds import seed_noise
from harness.laws.solve import initialisation
from harness.laws.surfaces import Floats

FORM, SETUP, EXTRACTION, FITTING = "form", "training setup", "data extraction", "fitting"

UNKNOWN = "unknown: "

COUNTED = {
    ParamsKind.total: "all parameters, embeddings and head included",
    ParamsKind.non_embedding: "without the embedding and head matrices",
    ParamsKind.body_and_head: "without the input embedding, the head included",
}

Columns = Mapping[str, Sequence[str]]
"""What else is known of the runs that were fitted, as text by column; an empty cell is not known."""


@dataclass(frozen=True)
class Item:
    section: str
    question: str
    answer: str

    @property
    def known(self) -> bool:
        return not self.answer.startswith(UNKNOWN)


def checklist(
    observations: Observations, fitted: Fit, config: FitConfig, columns: Columns, rules: Sequence[str] = ()
) -> tuple[Item, ...]:
    """Every item, in order. `rules` are the filters by which rows were chosen, as the user typed them."""
    return (
        *form_items(observations, fitted),
        *count_items(observations, columns),
        *grid_items(observations),
        *training_items(observations, columns),
        *extraction_items(observations, columns, rules),
        *fitting_items(fitted, config),
    )


def checklist_json(items: Sequence[Item]) -> dict[str, Any]:
    """Answers by section and question, and the questions that are open."""
    sections: dict[str, dict[str, str]] = {}
    for item in items:
        sections.setdefault(item.section, {})[item.question] = item.answer
    return {**sections, "unknown": [item.question for item in items if not item.known]}


def form_items(observations: Observations, fitted: Fit) -> Iterator[Item]:
    held = fitted.conventions["held"]
    yield Item(FORM, "form", formula(fitted))
    yield Item(FORM, "parameters fitted", f"{', '.join(fitted.params)}; held: {held}")
    response = fitted.conventions["response"]
    yield Item(FORM, "loss", f"in {observations.loss_unit.value}; residuals are of {response}")


def formula(fitted: Fit) -> str:
    """The first paragraph of the documentation of the law itself, and the constants that make it this one."""
    law, held = fitted.form.evaluate, ""
    if isinstance(law, partial):
        held = "".join(f" ({name} = {value:g})" for name, value in law.keywords.items())
        law = law.func
    return " ".join((inspect.getdoc(inspect.getmodule(law)) or "").split("\n\n")[0].split()) + held


def count_items(observations: Observations, columns: Columns) -> Iterator[Item]:
    kind, sized = observations.params_kind, observations.sized
    unread = f"{UNKNOWN}a law of compute alone was fitted to rows without it"
    yield Item(SETUP, "how N is counted", f"{kind.value}: {COUNTED[kind]}" if sized else unread)
    yield Item(SETUP, "how D is counted", "tokens seen" if sized else unread)
    yield Item(SETUP, "repetition of data", epochs(observations, columns))
    yield Item(SETUP, "how C is counted", observations.flops_kind)


def epochs(observations: Observations, columns: Columns) -> str:
    found = numbers(columns, "epochs") if observations.epochs is None else observations.epochs
    if not len(found):
        return f"{UNKNOWN}a column epochs or unique_tokens would tell"
    return f"{spread(found)} epochs"


def grid_items(observations: Observations) -> Iterator[Item]:
    rows = observations
    yield Item(
        SETUP, "runs", f"{len(rows)} in {len(cells(rows))} cells of (N, D)" if rows.sized else f"{len(rows)}"
    )
    sizes = (("sizes", rows.params, None), ("token counts", rows.tokens, None)) if rows.sized else ()
    for label, values, factor in (*sizes, ("budgets", rows.flops, SAME_BUDGET)):
        count = levels(values) if factor is None else levels(values, factor)
        decades = math.log10(values.max() / values.min())
        yield Item(SETUP, label, f"{count}, {spread(values)}: {decades:.1f} decades")
    if rows.sized:
        yield Item(SETUP, "tokens per parameter", spread(rows.tokens / rows.params))
    said = f"{UNKNOWN}no cell was run with two seeds; a column seed and repeated cells would tell"
    if noise := seed_noise(rows):
        said = f"{noise.std:.2%} of the loss between seeds of one cell ({noise.degrees_of_freedom} repeats)"
    yield Item(SETUP, "seed noise", said)


def training_items(observations: Observations, columns: Columns) -> Iterator[Item]:
    for question, names in (
        ("architecture", ("width", "depth", "n_heads")),
        ("context", ("context",)),
        ("optimizer", ("optimizer",)),
        ("batch size, tokens", ("batch_tokens",)),
        ("learning-rate schedule", ("schedule",)),
    ):
        yield Item(SETUP, question, described(columns, names))
    yield Item(SETUP, "learning rate tuned", tuning(observations, columns))
    yield Item(SETUP, "schedule ends with the run", horizon(columns))
    for question, hashes in (
        ("corpus", observations.corpus_hashes),
        ("tokenizer", observations.tokenizer_hashes),
    ):
        known = f"one, {hashes[0][:12]}" if hashes[0] else described(columns, (question, f"{question}_hash"))
        yield Item(SETUP, question, known)


def described(columns: Columns, names: Sequence[str]) -> str:
    """Each column in a few words: its one value, or its range, or how many values it has."""
    found = [f"{name} {words(columns, name)}" for name in names if texts(columns, name)]
    return "; ".join(found) or f"{UNKNOWN}a column {' or '.join(names)} would tell"


def words(columns: Columns, name: str) -> str:
    values = sorted(set(texts(columns, name)))
    figures = numbers(columns, name)
    if len(values) > 1 and len(figures) == len(texts(columns, name)):
        return spread(figures)
    return ", ".join(values) if len(values) <= 3 else f"{len(values)} values"


def tuning(observations: Observations, columns: Columns) -> str:
    """Whether any cell was run at several learning rates; one rate a cell says nothing of tuning."""
    rates = columns.get("lr", ())
    if len(rates) != len(observations) or not all(rates):
        return f"{UNKNOWN}a column lr would tell"
    tried = [len({rates[i] for i in rows}) for rows in cells(observations)]
    if max(tried) == 1:
        rate = spread(numbers(columns, "lr"))
        return f"{UNKNOWN}one learning rate a cell ({rate}); several rates in one cell would tell"
    return f"up to {max(tried)} learning rates a cell, {sum(t > 1 for t in tried)} of {len(tried)} cells"


def horizon(columns: Columns) -> str:
    """A record is one schedule run to its end; of a table nobody knows."""
    if texts(columns, "schedule") and texts(columns, "config_hash"):
        return "yes: every record is a run of its own, finished, with the loss after its last step"
    return f"{UNKNOWN}run directories tell; of a table, whether rows are intermediate checkpoints is not said"


def extraction_items(observations: Observations, columns: Columns, rules: Sequence[str]) -> Iterator[Item]:
    yield Item(EXTRACTION, "which loss", described(columns, ("loss_kind",)))
    named = not any(name.startswith("row ") for name in observations.run_ids)
    points = "one, the last of each run"
    yield Item(EXTRACTION, "points per run", points if named else f"{UNKNOWN}a column run_id would tell")
    smoothed = [text for text in set(texts(columns, "loss_kind")) if "smooth" in text.lower()]
    unsaid = f"{UNKNOWN}the column loss_kind would tell"
    yield Item(EXTRACTION, "smoothing", "; ".join(smoothed) or unsaid)
    yield Item(EXTRACTION, "rows chosen by", ", ".join(rules) or "no filter")
    count = len(observations.dropped)
    left_out = f"{count}: {summary(observations.dropped)}" if count else "none"
    yield Item(EXTRACTION, "rows left out", left_out)


def fitting_items(fitted: Fit, config: FitConfig) -> Iterator[Item]:
    yield Item(FITTING, "objective", objective(config.law))
    yield Item(FITTING, "prior on the exponents", prior(fitted))
    yield Item(FITTING, "algorithm", newton.METHOD)
    yield Item(FITTING, "initialisation", initialisation(fitted.form))
    yield Item(FITTING, "uncertainty", uncertainty(config))
    yield Item(FITTING, "residual", f"{fitted.residual_rms:.2%} rms of ln L, objective {fitted.objective!r}")
    status = f"{fitted.status.value}{': ' if fitted.reasons else ''}{'; '.join(fitted.reasons)}"
    yield Item(FITTING, "identified", status)
    yield Item(
        FITTING, "validation on held-out runs", "none in a fit; `harness forecast` backtests these runs"
    )


def objective(law: LawConfig) -> str:
    if law.loss is not LossFunction.huber:
        return f"sum of squares of the residuals of {objective_of(law).response.value}"
    return f"sum of Huber losses of the residuals of ln L, delta {law.delta:g}"


def prior(fitted: Fit) -> str:
    if not fitted.solution.how.weak_prior:
        return "none"
    priors = fitted.form.weak_prior.values()
    return "normal, " + ", ".join(f"{mean:g} +- {sd:g}" for mean, sd in priors)


def uncertainty(config: FitConfig) -> str:
    if config.intervals is IntervalMethod.profile:
        return f"{config.level:.0%} profile likelihood intervals"
    if not config.bootstraps:
        return "none"
    return (
        f"{config.level:.0%} percentile intervals of {config.bootstraps} bootstraps of "
        f"{config.resampling.value}, seed {config.seed}"
    )


def texts(columns: Columns, name: str) -> list[str]:
    return [text for text in columns.get(name, ()) if text]


def numbers(columns: Columns, name: str) -> Floats:
    """The numbers of a column; empty when it is not there, and without the cells that are not numbers."""
    found = []
    for text in texts(columns, name):
        try:
            found.append(float(text))
        except ValueError:
            continue
    return np.array(found)


def spread(values: Floats) -> str:
    """One value, or the least and the greatest."""
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
