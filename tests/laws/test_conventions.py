"""Conventions are carried from one to another by what the rows themselves say, or refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.commands.fit import Settings
from harness.commands.observe import observe
from harness.config import compose_all
from harness.errors import CannotAnswer, WrongInput
from harness.laws.alternatives import printed
from harness.laws.config import FitConfig, FlopsKind, LawConfig, LossUnit, ParamsKind
from harness.laws.conventions import (
    SIX_ND,
    TokenCost,
    curve_through,
    in_flops,
    require_unit,
    size_conversion,
    token_cost,
)
from harness.laws.fit import fit_law
from harness.laws.forms.chinchilla import CHINCHILLA as LAW
from harness.laws.forms.form import predict
from harness.laws.forms.optimum import allocate, optimum
from harness.laws.intervals import fit_json
from harness.laws.observations import FLOPS_6ND, FLOPS_GIVEN, Observations
from harness.shape import ModelConfig, ModelShape, build_shape

from ..public_data import planted_sweep
from .test_observations import record, write_record

EPOCH = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
CHINCHILLA = {
    "A": math.exp(6.0073404),
    "B": math.exp(6.0179186),
    "E": math.exp(0.5267228),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}
GAMMA = 47491
"""Embeddings are GAMMA N^(1/3) for N other parameters, Pearce & Song 2406.12907."""


def with_head(rows: Observations, head: float) -> Observations:
    """The rows with FLOPs of their own, 6 (N + head) a token."""
    return replace(rows, flops=6 * (rows.params + head) * rows.tokens, flops_kind=FLOPS_GIVEN)


@pytest.fixture(scope="module")
def rows() -> Observations:
    return planted_sweep(0, 0.0)


@pytest.mark.parametrize(("constants", "slope"), [(EPOCH, 0.7865), (CHINCHILLA, 0.7497)])
def test_leaving_embeddings_out_of_n_and_c_turns_chinchilla_into_kaplan(constants, slope):
    """Pearce & Song 2406.12907: one law in the total N, its optimum sought under C = 6 N_body D.

    The budgets are their closed form at 20 sizes from 768 to 1.5e9. Its slope there is .787 and .750; they
    print .78 and .74.
    """
    a, b, alpha, beta = (constants[name] for name in ("A", "B", "alpha", "beta"))
    body = np.geomspace(768, 1.5e9, 20)
    total = body + GAMMA * body ** (1 / 3)
    flops = (
        6 * body * (body + GAMMA / 3 * body ** (1 / 3)) ** (-1 / beta)
        * total ** ((1 + alpha) / beta) * (b * beta / (a * alpha)) ** (1 / beta)
    )  # fmt: skip
    dense = np.geomspace(100, 1e11, 800)  # three percent apart: sizes of their own
    cost = TokenCost("6 N_body", curve_through(dense + GAMMA * dense ** (1 / 3), 6 * dense, 6.0))
    to_body = curve_through(dense + GAMMA * dense ** (1 / 3), dense, 1.0)
    values = np.array([list(constants.values())])
    found = np.exp([allocate(LAW, values, float(c), cost)[0][0] for c in flops])
    assert found == pytest.approx(total, rel=1e-3)
    assert np.polyfit(np.log(flops), np.log(to_body(found)), 1)[0] == pytest.approx(slope, abs=2e-4)


def test_a_count_of_parameters_is_carried_beyond_the_rows(rows):
    """The excess of one N over another is a power law, so it goes on past the largest model."""
    total = replace(rows, params=rows.params + 1000 * rows.params ** (1 / 3))
    body = replace(rows, params_kind=ParamsKind.non_embedding)
    up, down = size_conversion(body, total), size_conversion(total, body)
    sizes = np.array([1e3, 5e4, 1e7, 1e10])
    assert up(sizes) == pytest.approx(sizes + 1000 * sizes ** (1 / 3), rel=1e-9)
    inside = np.array([3e4, 1e5])
    assert down(up(inside)) == pytest.approx(inside, rel=0.01)
    assert down(np.array([1e14])) == pytest.approx([1e14], rel=0.01)


def test_exact_flops_move_the_optimum_as_the_known_head_does(rows):
    own = with_head(rows, head=5e4)
    cost = token_cost(own, FlopsKind.as_given)
    fit = fit_law(own, LawConfig())
    best = fit.optimum(1e15, cost)
    sizes = np.geomspace(1e6, 1e8, 20_001)
    tokens = 1e15 / (6 * (sizes + 5e4))
    at = int(np.argmin(fit.predict({"params": sizes, "tokens": tokens})))
    assert (best.params, best.tokens) == pytest.approx((sizes[at], tokens[at]), rel=2e-3)
    assert best.params * best.tokens * 6 < 0.99e15  # the head is paid for
    assert best.flops_convention == cost.label == "as given, interpolated in N"
    assert cost.largest(own) == pytest.approx(own.flops.max(), rel=1e-12)


def test_flops_that_are_6nd_keep_the_closed_form(rows):
    cost = token_cost(with_head(rows, 0.0), FlopsKind.auto)
    assert cost.is_6nd
    assert cost.label == "as given, equal to 6ND"


@pytest.mark.parametrize("fault", ["two contexts", "none"])
def test_flops_on_no_one_curve_are_refused_or_left_visibly(rows, fault):
    """`auto` says why it fell back; `as_given` refuses in one line."""
    own = rows
    if fault == "two contexts":
        own = with_head(rows, 0.0)
        own = replace(own, flops=own.flops * np.where(np.arange(len(own)) % 2, 1.3, 1.0))
        assert "differ by 30%" in token_cost(own, FlopsKind.auto).note
    assert token_cost(own, FlopsKind.auto).label == FLOPS_6ND
    with pytest.raises(CannotAnswer, match=r"fit\.flops=6nd") as refusal:
        token_cost(own, FlopsKind.as_given)
    assert "\n" not in str(refusal.value)


def test_6nd_on_demand_recounts_the_rows_and_says_so(rows):
    own = with_head(rows, 5e4)
    counted = in_flops(own, FlopsKind["6nd"])
    assert counted.flops == pytest.approx(6 * rows.params * rows.tokens)
    assert counted.conventions["flops"] == FLOPS_6ND
    assert token_cost(own, FlopsKind["6nd"]) is SIX_ND
    assert in_flops(own, FlopsKind.auto) is own


def test_every_output_names_its_conventions(rows):
    own = with_head(rows, 5e4)
    result = fit_json(own, fit_law(own, LawConfig()), FitConfig(bootstraps=20))
    named = {"flops_of_optimum": "as given, interpolated in N", "flops_of_exponent_a": FLOPS_6ND}
    assert {**own.conventions, **named}.items() <= result["conventions"].items()
    assert result["optimum"][0]["flops"] == pytest.approx(own.flops.max())
    low, high = result["optimum"][0]["interval"]["params"]
    assert low <= result["optimum"][0]["params"] * (1 + 1e-6)
    assert high >= result["optimum"][0]["params"] * (1 - 1e-6)


def ladder_shape(size: int, tied: bool) -> ModelShape:
    width = 32 * size
    model = ModelConfig(
        name=f"w{width}", width=width, depth=2 * size, n_heads=2 * size, head_dim=16, mlp_hidden=3 * width
    )
    return build_shape(replace(model, tied_embeddings=tied), vocab_size=1000, context=64)


def write_runs(root: Path, tied: bool) -> list[ModelShape]:
    """Finished runs of a ladder of four sizes at four horizons, their FLOPs counted from the shape."""
    shapes = [ladder_shape(size, tied) for size in (1, 2, 3, 4)]
    for shape in shapes:
        for tokens in (10**6, 3 * 10**6, 10**7, 3 * 10**7):
            loss = 1.6 + 60 / shape.params.total**0.35 + 300 / tokens**0.36
            run = record(
                run_id=f"{shape.width}-{tokens}",
                params_total=shape.params.total,
                params_non_embedding=shape.params.non_embedding,
                params_embedding=shape.params.embedding,
                params_head=shape.params.head,
                tokens=tokens,
                flops=shape.training_flops(tokens),
                loss=loss,
                bits_per_byte=0.4 * loss,
            )
            write_record(root, run)
    return shapes


@pytest.mark.parametrize("tied", [True, False])
def test_a_run_directory_holds_every_convention(tmp_path, tied):
    """Three counts of N, FLOPs from the shape, both units of the loss."""
    shapes = write_runs(tmp_path, tied)
    words = [f"runs={tmp_path}", "fit.params=body_and_head", "fit.unit=bits_per_byte", "fit.flops=as_given"]
    settings = compose_all("fit", Settings, [words])[0]
    found = observe(settings, settings.fit.params, settings.fit.unit)
    expected = {"params": "body_and_head", "loss": "bits/byte", "flops": "exact"}
    assert expected.items() <= found.conventions.items()
    assert set(found.params) == {shape.params.body_and_head for shape in shapes}
    assert all((s.params.body_and_head == s.params.total) == tied for s in shapes)
    assert found.loss.max() < 0.4 * 8
    cost = token_cost(found, settings.fit.flops)
    assert cost.label == "exact, interpolated in N"
    for shape, accuracy in ((shapes[2], 1e-9), (ladder_shape(5, tied), 0.02)):  # the next rung is not there
        per_token = cost.per_token(np.array([float(shape.params.body_and_head)]))[0]
        assert per_token == pytest.approx(shape.flops_per_token.training, rel=accuracy)


def test_another_unit_of_the_loss_is_refused(rows):
    assert require_unit(rows, None) is require_unit(rows, LossUnit.nats_per_token) is rows
    with pytest.raises(WrongInput, match=r"fit\.unit=bits_per_byte, but the losses are in nats/token"):
        require_unit(rows, LossUnit.bits_per_byte)


def test_json_keeps_every_digit():
    """The law read back from JSON predicts the same to the bit; printed digits do not."""
    fit = fit_law(planted_sweep(3, 0.005), LawConfig())
    again = json.loads(json.dumps(fit.to_json()))["params"]
    at = {"params": 1e6, "tokens": 1e9}
    here, there = (predict(LAW, params, at)[0] for params in (fit.params, again))
    assert here == there == fit.predict(at)[0]
    rounded = {name: printed(name, value) for name, value in fit.params.items()}
    assert predict(LAW, rounded, at)[0] != here


def test_rounding_alone_moves_tokens_per_parameter_from_59_to_93():
    """Hoffmann et al. 2203.15556 at 5.76e23 FLOPs: constants in full and as printed."""
    ratios = []
    printed_constants = {name: printed(name, value) for name, value in CHINCHILLA.items()}
    assert printed_constants == {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}
    for constants in (CHINCHILLA, printed_constants):
        n, d = optimum(LAW, constants, 5.76e23)
        ratios.append(d / n)
    assert ratios == pytest.approx([58.93, 92.65], abs=0.01)
