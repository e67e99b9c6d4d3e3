"""What an answer owes to choices: the published swings come out, and nothing is left out in silence."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.commands.fit import Settings
from harness.config import compose_all
from harness.errors import CannotAnswer, WrongInput
from harness.laws.alternatives import drop_rules
from harness.laws.collect import collect
from harness.laws.config import (
    FitConfig,
    FlopsKind,
    LawConfig,
    LawName,
    LossFunction,
    LossUnit,
    ParamsKind,
)
from harness.laws.conventions import token_cost
from harness.laws.fit import fit_law
from harness.laws.observations import FLOPS_GIVEN, Observations, Row
from harness.laws.sensitivity import NOT_FITTED, Refit, Sensitivity, sensitivity
from harness.laws.tables import observations_from_table
from harness.report.sensitivity import print_sensitivity, tornado_figure

from ..public_data import planted_sweep, public_table

TARGET = 5.76e23
POINT = FitConfig(bootstraps=0)


def by_label(found: Sensitivity, start: str) -> Refit:
    (match,) = [r for r in found.refits if f"{r.choice}: {r.alternative}".startswith(start)]
    return match


def chinchilla(kind: ParamsKind) -> Observations:
    return observations_from_table(public_table("chinchilla_epoch.csv"), params=kind)


@pytest.fixture(scope="module")
def all_245() -> Sensitivity:
    def counted(kind: ParamsKind, unit: LossUnit) -> Observations:
        if unit is not LossUnit.nats_per_token:
            raise WrongInput("the losses are in nats/token")
        return chinchilla(kind)

    return sensitivity(chinchilla(ParamsKind.total), POINT, TARGET, counted)


def test_five_rows_of_245_move_the_published_exponent(all_245):
    """Besiroglu et al. 2404.10102: a = .5646 on all rows, .5139 without the five highest losses."""
    dropped = by_label(all_245, "rows left out: the highest losses (5)")
    assert (all_245.base.n, dropped.n) == (245, 240)
    assert all_245.base.exponent_a == pytest.approx(0.5646, abs=5e-5)
    assert dropped.exponent_a == pytest.approx(0.5139, abs=5e-5)
    assert dropped.swing(all_245.base) > 2.5
    within = all_245.range()
    assert within["exponent_a"][0] <= 0.5139 < 0.5646 <= within["exponent_a"][1]


def test_the_widest_swing_comes_first_and_reasons_last(all_245):
    swings = [refit.swing(all_245.base) for refit in all_245.refits]
    known = [abs(math.log(s)) for s in swings if s is not None]
    assert known == sorted(known, reverse=True)
    assert swings[len(known) :] == [None] * (len(swings) - len(known))
    missing = {r.choice: r.reason for r in all_245.refits if r.status == NOT_FITTED}
    assert "params_body_and_head" in missing["which N"]
    assert missing["unit of the loss"] == "the losses are in nats/token"
    assert by_label(all_245, "rows left out: all but the best of each cell").n == 239  # six sizes twice


def test_a_grid_of_single_runs_has_no_best_of_a_cell():
    found = sensitivity(planted_sweep(0, 0.003), POINT)
    refused = by_label(found, "rows left out: all but the best of each cell")
    assert (refused.status, refused.reason) == (NOT_FITTED, "no cell has two runs")


def test_fits_that_are_not_identified_are_counted_and_outside_the_range(all_245):
    """With five rows far off, least squares bends where the law does not."""
    outside = [r for r in all_245.refits if r.status == "not_identified"]
    assert {r.alternative for r in outside} == {"least squares of L", "least squares of ln L"}
    within = all_245.range()
    assert within["not_identified"] == len(outside)
    assert min(r.tokens_per_param for r in outside) < within["tokens_per_param"][0]
    for refit in (all_245.base, *all_245.refits):
        if refit.in_range:
            assert within["params"][0] <= refit.params <= within["params"][1]


def test_rounding_shows_its_price_and_is_no_choice(all_245):
    rounded = by_label(all_245, "constants: rounded to 495.7, 12850, 1.89, 0.35, 0.45")
    assert not rounded.in_range
    assert abs(math.log(rounded.swing(all_245.base))) > 0.2


def test_another_n_is_shown_in_the_users_own(all_245):
    """N* of the fit without embeddings is counted with them, so that D*/N* compares."""
    other = by_label(all_245, "which N: non_embedding")
    assert other.own_params_convention == "non_embedding"
    assert other.flops_convention == "as given, interpolated in N"
    assert other.exponent_a - all_245.base.exponent_a > 0.03
    rows = chinchilla(ParamsKind.non_embedding)
    body = fit_law(rows, LawConfig()).optimum(TARGET, token_cost(rows, FlopsKind.auto)).params
    assert 32000 * 5120 < other.params - body < 32000 * 30000  # the embeddings of a model of 1.7e11
    assert 6 * other.params * other.tokens == pytest.approx(TARGET, rel=0.01)


def test_json_is_whole_and_the_tornado_names_its_conventions(all_245, capsys):
    result = json.loads(json.dumps(all_245.to_json(), allow_nan=False))
    assert set(result) == {"target", "conventions", "base", "rows", "range"}
    assert result["target"] == {"flops": TARGET, "convention": "as given, equal to 6ND"}
    figure = tornado_figure(result)
    assert figure == tornado_figure(result)
    ElementTree.fromstring(figure.replace("xlink:", ""))
    print_sensitivity(result)
    text = capsys.readouterr().out
    for refit in all_245.refits:
        assert refit.alternative in text
    assert "count total parameters in every row" in text


def kaplan_like(kind: ParamsKind) -> Observations:
    """Noise-free runs of a law in the total N, where small models are mostly embeddings."""
    body, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(1e8, 1e10, 5)))
    total = body + 47491 * np.cbrt(body)
    loss = 1.8172 + 482.01 / total**0.3478 + 2085.43 / tokens**0.3658
    n = total if kind is ParamsKind.total else body
    rows = [
        Row(name=f"run{i}", params=n[i], tokens=tokens[i], flops=6 * total[i] * tokens[i], loss=loss[i])
        for i in range(len(n))
    ]
    return collect(rows, kind, LossUnit.nats_per_token, FLOPS_GIVEN)


def test_leaving_embeddings_out_of_n_raises_the_exponent():
    """Pearce & Song 2406.12907: N and C both without them, as in Kaplan et al. 2001.08361."""
    total, config = kaplan_like(ParamsKind.total), FitConfig(bootstraps=0, flops=FlopsKind["6nd"])
    found = sensitivity(total, config, 1e20, lambda kind, _: kaplan_like(kind))
    other = by_label(found, "which N: non_embedding")
    assert found.base.exponent_a == pytest.approx(0.3658 / (0.3478 + 0.3658), abs=1e-4)
    assert other.exponent_a > found.base.exponent_a + 0.1


def test_least_squares_of_the_loss_itself_recovers_a_planted_law():
    fit = fit_law(planted_sweep(0, 0.0), LawConfig(loss=LossFunction.least_squares_loss))
    truth = {"A": 60.0, "B": 300.0, "E": 1.6, "alpha": 0.35, "beta": 0.36}
    assert fit.params == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("name", [LawName.chinchilla_tied, LawName.skaling])
def test_any_law_that_allocates_can_be_asked(name):
    found = sensitivity(planted_sweep(0, 0.003), FitConfig(bootstraps=0, law=LawConfig(name=name)))
    others = {r.alternative for r in found.refits if r.choice == "law"}
    assert others == {law.value for law in (LawName.chinchilla, LawName.chinchilla_tied, LawName.skaling)} - {
        name.value
    }
    reason = by_label(found, "loss function: least squares of L").reason
    assert reason == ""


def test_a_law_that_reads_unique_tokens_is_asked_at_the_most_of_its_runs():
    sweep = planted_sweep(0, 0.003)
    rows = replace(sweep, unique_tokens=np.minimum(sweep.tokens, 2e7))
    config = FitConfig(bootstraps=0, law=LawConfig(name=LawName.repetition))
    found = sensitivity(rows, config, 1e15)
    asked = fit_law(rows, config.law).optimum(1e15, given={"unique_tokens": 2e7})
    assert (found.base.params, found.base.tokens) == (asked.params, asked.tokens)
    assert sum(refit.tokens is not None for refit in found.refits) > 10


def test_a_law_of_compute_alone_has_no_allocation_to_move():
    config = FitConfig(bootstraps=0, law=LawConfig(name=LawName.frontier))
    with pytest.raises(CannotAnswer, match="allocates no budget"):
        sensitivity(planted_sweep(0, 0.003), config, 1e15)


def test_an_unidentified_own_setting_is_said_to_be_so():
    rows = observations_from_table(public_table("careless_sweep.csv"), ["group=sweep"])
    found = sensitivity(rows, POINT)
    assert found.base.status == "not_identified"
    assert "E ran to zero" in found.base.reason
    assert not found.base.in_range


def test_rules_for_leaving_rows_out():
    """Fifty rows by hand: which one each rule takes."""
    rows = planted_sweep(0, 0.0, sizes=10, horizons=5)
    residual = np.zeros(len(rows))
    residual[:2] = 0.001, 0.5
    kept = {label.split(" below")[0]: keep for label, keep in drop_rules(rows, residual)}
    left_out = {label: np.flatnonzero(~keep) for label, keep in kept.items()}
    worst = np.argmax(rows.loss)
    assert left_out["the highest losses"].tolist() == [worst]
    assert len(left_out["the smallest size"]) == len(left_out["the largest size"]) == 5
    assert (rows.flops[left_out["the largest budget"]] >= rows.flops.max() / 1.5).all()
    assert not len(left_out["tokens/param"])  # two rules share this label; none is undertrained here


def test_undertrained_rows_are_those_of_few_tokens_per_parameter():
    rows = planted_sweep(0, 0.0)
    short = replace(rows, tokens=rows.params * np.linspace(0.5, 20, len(rows)))
    for label, keep in drop_rules(short, np.zeros(len(rows))):
        if label.startswith("tokens/param below"):
            ratio = float(label.split()[-1])
            assert ((short.tokens / short.params >= ratio) == keep).all()
            assert 0 < (~keep).sum() < len(rows)


def test_the_command_prints_json_and_draws(harness, tmp_path: Path):
    rows = planted_sweep(1, 0.003)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(("params_total", "tokens", "loss"))
        write.writerows(zip(rows.params, rows.tokens, rows.loss, strict=True))
    words = ("fit", "runs=table.csv", "fit.bootstraps=0", "flops=[1e15]", "sensitivity=true", "figure=t.svg")
    done = harness(*words, "format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sensitivity"]["target"]["flops"] == 1e15
    assert result["checklist"]["training setup"]["sizes"].startswith("5, 2e+04 to 2e+05: 1.0 decades")
    assert (tmp_path / "t.svg").read_text().startswith("<svg")


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(WrongInput, match="figure= draws laws of params and tokens"):
        compose_all("fit", Settings, [["law=bnsl", "figure=t.svg"]])
