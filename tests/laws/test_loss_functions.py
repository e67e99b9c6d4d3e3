"""Least squares of L and of ln(1 + L), as published fits used them, from the words of the command line."""

from __future__ import annotations

import json

import pytest

from harness.commands.fit import Settings
from harness.commands.observe import observe
from harness.config import compose_all
from harness.laws.config import OF_COMPUTE, LawConfig, LossFunction
from harness.laws.fit import Fit, FitStatus, fit_law
from harness.laws.intervals import fit_json
from harness.laws.tables import observations_from_table

from ..public_data import public_table

FIVE_RUNS = 'where=["group=rpj","gadre_role=fit"]'
HEADLINE = "at=[[1439795200,921468928000],[6889410560,137788211200]]"


def asked(*words: str) -> tuple[Settings, Fit]:
    settings = compose_all("fit", Settings, [[*words, "fit.bootstraps=0"]])[0]
    rows = observe(settings, settings.fit.params, of_compute=settings.fit.law.name in OF_COMPUTE)
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


ADDITION = ("law=bnsl", "columns={flops: dataset_size}")


def test_break_of_four_digit_addition():
    """The first 14 of 17 points, least squares of ln(1 + L) (2210.14891)."""
    words = (f"runs={public_table('bnsl_addition.csv')}", *ADDITION, "fit.law.loss=least_squares_log1p")
    _, fit = asked(*words, 'where=["repo_role=fit"]')
    assert (fit.status, fit.n) == (FitStatus.identified, 14)
    found = [fit.params[name] for name in ("a", "b", "c0", "c1", "d1", "f1")]
    published = [0.413885, 2.277272, 0.0550774, 5.662909, 612.5837, 0.0591931]
    assert found == pytest.approx(published, rel=3e-6)
    at = fit.predict({"flops": [160, 320, 640, 1000]})
    assert at == pytest.approx([2.13582, 2.07132, 1.50627, 0.51091], abs=6e-6)


@pytest.mark.parametrize("law", ["bnsl", "frontier"])
def test_points_before_the_break_promise_nothing(law):
    words = (f"runs={public_table('bnsl_addition.csv')}", *ADDITION, f"law={law}")
    _, fit = asked(*words[:1], *words[2:], 'where=["dataset_size<500"]')
    assert fit.status is FitStatus.not_identified


def test_dense_runs_without_tokens_have_a_frontier(harness, tmp_path):
    words = (f"runs={public_table('clark_routed.csv')}", 'where=["group=Dense"]', "fit.bootstraps=0")
    done = harness("fit", *words, "law=frontier", "checklist=true", "format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["status"], found["conventions"]["tokens"]) == ("identified", "unknown")
    assert [point["flops"] for point in found["frontier"]] == pytest.approx(
        [1.31e21, 1.31e22, 1.31e23], rel=0.01
    )
    for more, said in (
        (("law=chinchilla",), "13 tokens is missing"),
        (("law=frontier", "approaches=true"), "13 tokens is missing"),
        (("law=frontier", "fit.flops=6nd"), "needs the columns of params and tokens"),
    ):
        assert said in harness("fit", *words, *more, cwd=tmp_path).stderr


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
