"""Least squares of L and of ln(1 + L), as published fits used them, from the words of the command line."""

from __future__ import annotations

import pytest

from harness.commands.fit import Settings
from harness.commands.observe import observe
from harness.config import compose_all
from harness.laws.config import LawConfig, LossFunction
from harness.laws.fit import Fit, FitStatus, fit_law
from harness.laws.intervals import fit_json
from harness.laws.tables import observations_from_table

from ..public_data import public_table

FIVE_RUNS = 'where=["group=rpj","gadre_role=fit"]'
HEADLINE = "at=[[1439795200,921468928000],[6889410560,137788211200]]"


def asked(*words: str) -> tuple[Settings, Fit]:
    settings = compose_all("fit", Settings, [[*words, "fit.bootstraps=0"]])[0]
    rows = observe(settings, settings.fit.params)
    return settings, fit_law(rows, settings.fit.law)


def test_over_training_constants_of_gadre():
    """Five runs, least squares of the loss itself (2403.08540)."""
    table = f"runs={public_table('gadre_overtrain.csv')}"
    settings, fit = asked(table, "law=overtrain", "fit.law.loss=least_squares_loss", FIVE_RUNS, HEADLINE)
    assert fit.status is FitStatus.identified
    assert fit.params["eta"] == pytest.approx(0.27285, abs=5e-6)
    rows = observe(settings, settings.fit.params)
    found = fit_json(rows, fit, settings.fit, at=settings.at)
    assert [point["loss"] for point in found["predictions"]] == pytest.approx([2.5198, 2.4427], abs=5e-5)
    assert found["conventions"]["response"] == "L"
    assert found["conventions"]["loss_function"] == "least squares"
    assert settings.fit.law.label == "overtrain, least squares of L"


def test_chinchilla_below_1e21_by_least_squares_of_the_loss():
    """A public refit of 217 rows has E 1.9051, alpha .3511, beta .4587, squares .062414."""
    rows = observations_from_table(
        public_table("chinchilla_epoch.csv"), ["excluded_by_epoch=0", "flops<1e21"]
    )
    fit = fit_law(rows, LawConfig(loss=LossFunction.least_squares_loss))
    assert fit.params["E"] == pytest.approx(1.9051, abs=5e-5)
    assert fit.params["alpha"] == pytest.approx(0.3511, abs=5e-5)
    assert fit.params["beta"] == pytest.approx(0.4587, abs=5e-5)


def test_every_loss_function_has_a_label_of_its_own():
    labels = {LawConfig(loss=loss).label for loss in LossFunction}
    assert len(labels) == len(LossFunction)
    assert LawConfig(loss=LossFunction.least_squares_loss).label == "chinchilla, least squares of L"
