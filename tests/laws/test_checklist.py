"""The checklist is filled from the runs and the settings; what they do not say is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.laws.checklist import Item, checklist, checklist_json
from harness.laws.config import FitConfig, LawConfig, LawName, LossFunction, ParamsKind, Resampling
from harness.laws.fit import fit_law
from harness.laws.observations import Observations
from harness.runs import Skipped

from ..public_data import planted_sweep


@pytest.fixture(scope="module")
def rows() -> Observations:
    """Five sizes at four horizons, two seeds a cell, one run left out."""
    return replace(doubled(planted_sweep(0, 0.0)), dropped=(Skipped("bad", "diverged"),))


def doubled(rows: Observations) -> Observations:
    noise = np.tile([0.99, 1.01], len(rows))
    columns = {name: np.repeat(getattr(rows, name), 2) for name in ("params", "tokens", "flops")}
    names = {
        name: tuple(x for x in getattr(rows, name) for _ in range(2))
        for name in ("groups", "corpus_hashes", "tokenizer_hashes")
    }
    count = 2 * len(rows)
    return replace(
        rows,
        **columns,
        **names,
        loss=np.repeat(rows.loss, 2) * noise,
        run_ids=tuple(f"run{i}" for i in range(count)),
        seeds=tuple(str(i % 2) for i in range(count)),
    )


def answers(rows: Observations, config: FitConfig, columns: dict[str, list[str]]) -> dict[str, Item]:
    fit = fit_law(rows, config.law)
    return {item.question: item for item in checklist(rows, fit, config, columns, ["loss<5"])}


def test_the_grid_and_the_seed_noise_are_measured(rows):
    found = answers(rows, FitConfig(), {})
    assert found["runs"].answer == "40 in 20 cells of (N, D)"
    assert found["sizes"].answer == "5, 2e+04 to 2e+05: 1.0 decades"
    assert found["token counts"].answer == "4, 5e+06 to 1.5e+08: 1.5 decades"
    assert found["seed noise"].answer == "1.41% of the loss between seeds of one cell (20 repeats)"
    assert found["rows left out"].answer == "1: 1 diverged"
    assert found["rows chosen by"].answer == "loss<5"


def test_answers_follow_the_settings(rows):
    """Every one of these differs from the default's, so none is a fixed text."""
    law = LawConfig(name=LawName.skaling, delta=0.02, weak_prior=True)
    asked = FitConfig(law=law, bootstraps=77, resampling=Resampling.residuals, seed=5, level=0.8)
    usual = answers(rows, FitConfig(), {})
    found = answers(replace(rows, params_kind=ParamsKind.body_and_head), asked, {})
    assert found["form"].answer.startswith("L = (A/N^alpha + B/D^beta)^k + E")
    assert found["parameters fitted"].answer.startswith("A, B, E, alpha, beta, k")
    assert "delta 0.02" in found["objective"].answer
    assert found["prior on the exponents"].answer == "normal, 0.38 +- 0.08, 0.38 +- 0.08, 0.55 +- 0.2"
    assert found["initialisation"].answer.startswith("a fixed grid of the form's own starts")
    assert found["uncertainty"].answer == "80% percentile intervals of 77 bootstraps of residuals, seed 5"
    assert found["how N is counted"].answer.startswith("body_and_head: without the input embedding")
    for question in ("form", "objective", "prior on the exponents", "uncertainty", "how N is counted"):
        assert found[question].answer != usual[question].answer
    squares = FitConfig(law=LawConfig(loss=LossFunction.least_squares), bootstraps=0)
    assert answers(rows, squares, {})["objective"].answer.startswith("sum of squares")
    assert answers(rows, squares, {})["uncertainty"].answer == "none"


def test_a_form_states_its_own_formula(rows):
    found = answers(rows, FitConfig(law=LawConfig(name=LawName.chinchilla_tied)), {})
    assert found["form"].answer.startswith("L = E + A/N^alpha + B/D^alpha")
    assert "form's own starts" in found["initialisation"].answer
    found = answers(rows, FitConfig(law=LawConfig(name=LawName.ces_square_root)), {})
    assert found["form"].answer.startswith("L = (E^(1/p) + (X^(1/k) + Y^(1/k))^k)^p with X = A/N^alpha")
    assert found["form"].answer.endswith("(power = 2)")


@pytest.mark.parametrize(
    ("question", "column", "cells", "answer"),
    [
        ("optimizer", "optimizer", ["adamw"], "optimizer adamw"),
        ("batch size, tokens", "batch_tokens", ["512", "1024"], "batch_tokens 512 to 1024"),
        ("context", "context", ["32"], "context 32"),
        ("repetition of data", "epochs", ["1", "4"], "1 to 4 epochs"),
        ("smoothing", "loss_kind", ["train (smoothed)"], "train (smoothed)"),
        ("learning rate tuned", "lr", ["0.1", "0.2"], "up to 2 learning rates a cell, 20 of 20 cells"),
        ("corpus", "corpus", ["c4"], "corpus c4"),
    ],
)
def test_what_is_unknown_is_known_once_its_column_is_there(rows, question, column, cells, answer):
    without = answers(rows, FitConfig(), {})[question]
    assert not without.known
    assert column in without.answer
    columns = {column: [cells[i % len(cells)] for i in range(len(rows))]}
    found = answers(rows, FitConfig(), columns)[question]
    assert found.known
    assert found.answer == answer


def test_one_learning_rate_a_cell_is_no_evidence_of_tuning(rows):
    found = answers(rows, FitConfig(), {"lr": ["0.1"] * len(rows)})["learning rate tuned"]
    assert not found.known


def test_json_lists_what_is_open(rows):
    fit = fit_law(rows, LawConfig())
    items = checklist(rows, fit, FitConfig(), {"optimizer": ["adamw"] * len(rows)})
    result = checklist_json(items)
    assert set(result) == {"form", "training setup", "data extraction", "fitting", "unknown"}
    assert "optimizer" not in result["unknown"]
    assert "learning-rate schedule" in result["unknown"]
    sections = [section for name, section in result.items() if name != "unknown"]
    assert sum(len(section) for section in sections) == len(items)  # no question twice in a section
