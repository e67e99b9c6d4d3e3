"""The optimizer follows the rules, the check sees what transfers, and no older run changes its name."""

import json
from copy import deepcopy

import pytest
import torch

from harness.commands.checks import check_coordinates, check_groups, coordinate_check
from harness.errors import WrongInput
from harness.model.attention import sdpa
from harness.model.init import build_model
from harness.training.cell import science_hash
from harness.training.coordinates import (
    Axis,
    Magnitudes,
    Moment,
    Quantity,
    Reading,
    resized,
    shapes_to_check,
    sizes_of,
    trends,
)
from harness.training.optim import build_optimizer, parameter_groups, set_lr
from tests.conftest import compose

WIDE_AND_DEEP = ("model=27k", "model.width=128", "model.n_heads=8", "model.mlp_hidden=384", "model.depth=6")
SIZES = ([32, 64, 128], [4, 8, 16])


def settings_of(toy_root, *overrides):
    return compose(toy_root, "train", overrides)


def model_of(settings):
    from harness.shape import build_shape

    shape = build_shape(settings.model, 256, settings.context)
    return build_model(shape, sdpa, settings.init, settings.parametrization, seed=0)


def by_name(model, groups):
    names = {weight: name for name, weight in model.named_parameters()}
    return {names[weight]: group for group in groups for weight in group["params"]}


def test_groups_carry_the_rules(toy_root):
    settings = settings_of(toy_root, *WIDE_AND_DEEP, "parametrization=complete_p", "optim.eps=1e-6")
    model = model_of(settings)
    optimizer = build_optimizer(model, settings.optim, 0.01)
    groups = by_name(model, optimizer.param_groups)
    assert groups.keys() == dict(model.named_parameters()).keys()
    hidden, norm, embedding = (
        groups[name]
        for name in (
            "blocks.0.attention.qkv.weight",
            "blocks.0.attention.key_norm.weight",
            "embedding.weight",
        )
    )
    assert (hidden["lr"], hidden["weight_decay"]) == pytest.approx((0.01 / 2, 0.1 * 2))
    assert (norm["lr"], norm["weight_decay"]) == (0.01, 0)
    assert (embedding["lr"], embedding["weight_decay"]) == (0.01, 0.1)
    assert all(group["eps"] == pytest.approx(1e-6 / 2 / 3) for group in groups.values())
    set_lr(optimizer, 0.001)
    assert (hidden["lr"], norm["lr"], embedding["lr"]) == pytest.approx((0.0005, 0.001, 0.001))


def test_the_standard_groups_are_matrices_and_gains(toy_root):
    settings = settings_of(toy_root, "model=27k")
    model = model_of(settings)
    matrices, gains = parameter_groups(model, settings.optim, 0.01)
    assert [(g["lr"], g["weight_decay"], g["eps"]) for g in (matrices, gains)] == [
        (0.01, 0.1, 1e-8),
        (0.01, 0.0, 1e-8),
    ]
    assert matrices["params"] == [p for p in model.parameters() if p.ndim >= 2]
    assert gains["params"] == [p for p in model.parameters() if p.ndim < 2]


def test_a_restored_optimizer_steps_alike(toy_root):
    settings = settings_of(toy_root, *WIDE_AND_DEEP, "parametrization=complete_p")

    def stepped(state=None):
        model = model_of(settings)
        optimizer = build_optimizer(model, settings.optim, 0.01)
        if state:
            optimizer.load_state_dict(deepcopy(state))
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, 0.1)
        set_lr(optimizer, 0.02)
        optimizer.step()
        return model, optimizer

    _, first = stepped()
    (one, _), (two, _) = stepped(first.state_dict()), stepped(first.state_dict())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    older = first.state_dict()
    for group in older["param_groups"]:
        del group["lr_multiplier"]
    _, optimizer = stepped(older)  # of a version that had no multipliers: all of them are one
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}


def check(toy_root, *overrides, sizes=SIZES):
    settings = settings_of(toy_root, "model=27k", "horizon.batch_tokens=256", *overrides)
    found = coordinate_check(settings, *sizes)
    return found, {(t.axis, t.quantity): t for t in found.trends if t.moment is Moment.change}


def test_complete_p_is_flat_over_width_and_depth(toy_root):
    found, _ = check(toy_root, "parametrization=complete_p")
    assert found.flat(Axis.width) and found.flat(Axis.depth)


def test_mup_is_flat_over_width_and_not_over_depth(toy_root):
    found, change = check(toy_root, "parametrization=mup")
    assert found.flat(Axis.width) and not found.flat(Axis.depth)
    assert change[Axis.depth, Quantity.blocks].exponent > 0.5


def test_standard_is_flat_over_neither(toy_root):
    found, change = check(toy_root, "optim.width_exponent=0")
    assert not found.flat(Axis.width) and not found.flat(Axis.depth)
    assert change[Axis.width, Quantity.blocks].exponent > 0.5
    assert change[Axis.depth, Quantity.blocks].exponent > 0.5


def test_a_rate_that_falls_with_the_width_starves_the_embedding(toy_root):
    found, change = check(toy_root, "optim.width_exponent=1", sizes=([32, 64, 128], [1, 2]))
    assert not found.flat(Axis.width)
    assert change[Axis.width, Quantity.embedding].exponent < -0.75


def planted(width: int, depth: int, seed: int, step: int) -> Reading:
    noise = 1.1 if seed else 1 / 1.1
    now = Magnitudes(width**0.5, (depth**0.125 * noise / 2,) * 2, step + 1.0, depth**-1.0)
    return Reading(width, depth, seed, step, rms=now, change=now)


def test_trends_recover_planted_powers():
    shapes = [(32, 2), (64, 2), (128, 2), (32, 4), (32, 8)]
    readings = [planted(w, d, seed, step) for w, d in shapes for seed in (0, 1) for step in (0, 1, 2)]
    found = {(t.axis, t.quantity, t.moment): t for t in trends(readings)}
    exponents = {
        (Axis.width, Quantity.embedding): 0.5,
        (Axis.width, Quantity.blocks): 0.0,
        (Axis.depth, Quantity.blocks): 0.125,
        (Axis.depth, Quantity.logits): -1.0,
    }
    for (axis, quantity), exponent in exponents.items():
        trend = found[axis, quantity, Moment.end]
        assert trend.exponent == pytest.approx(exponent, abs=1e-9)
        assert trend.flat is (abs(exponent) < 0.3)
        assert found[axis, quantity, Moment.start].flat is None
    assert found[Axis.depth, Quantity.blocks, Moment.end].sizes == (2, 4, 8)
    assert found[Axis.depth, Quantity.blocks, Moment.end].values[1] == pytest.approx(4**0.125)
    assert found[Axis.width, Quantity.hidden, Moment.start].values[0] == 1
    assert found[Axis.width, Quantity.hidden, Moment.end].values[0] == pytest.approx(3)


def test_shapes_differ_along_one_axis_at_a_time(toy_root):
    model = settings_of(toy_root, "model=27k", "model.n_kv_heads=1").model
    shapes = shapes_to_check(model, sizes_of(32, [64, 32], Axis.width), sizes_of(2, [], Axis.depth))
    assert [(m.width, m.depth) for m in shapes] == [(32, 2), (64, 2), (32, 4), (32, 8), (32, 16)]
    assert (shapes[1].n_heads, shapes[1].n_kv_heads, shapes[1].mlp_hidden) == (4, 2, 192)
    with pytest.raises(
        WrongInput, match=r"width 40 is not in proportion to model=27k: n_heads would be 2\.5"
    ):
        resized(model, 40, 2)
    with pytest.raises(WrongInput, match=r"depths=\[2\].*two"):
        sizes_of(2, [2], Axis.depth)


def test_the_check_shows_and_writes_table_figure_and_numbers(toy_root, tmp_path, capsys):
    settings = settings_of(toy_root, "model=27k", "parametrization=mup", f"runs_dir={tmp_path}")
    check_coordinates(settings, [32, 64], [1, 2])
    out = capsys.readouterr().out
    assert "over depth: not flat" in out or "over depth: flat" in out
    numbers = json.loads((tmp_path / "adhoc" / "coordinates_mup.json").read_text())
    assert len(numbers["readings"]) == 3 * 2 * 11
    assert len(numbers["trends"]) == 2 * 4 * 3
    assert "<svg" in (tmp_path / "adhoc" / "coordinates_mup.svg").read_text()


def test_groups_are_shown_as_the_optimizer_has_them(toy_root, capsys):
    check_groups(settings_of(toy_root, *WIDE_AND_DEEP, "parametrization=complete_p", "format=json"))
    shown = json.loads(capsys.readouterr().out)
    assert shown["multipliers"] == {"width": 2, "depth": 3}
    weights = {weight["name"]: weight for weight in shown["weights"]}
    assert len(weights) == 10
    down = weights["blocks.*.mlp.down.weight"]
    assert down["kind"] == "hidden"
    assert down["shape"] == [128, 384]
    assert down["init_std"] == pytest.approx(384**-0.5 / 2)
    assert (down["lr"], down["weight_decay"]) == pytest.approx((0.007 / 2, 0.1 * 2))
    check_groups(settings_of(toy_root, "model=27k"))
    assert "blocks.*.attention.qkv.weight" in capsys.readouterr().out


def test_the_standard_parametrization_leaves_every_hash_as_it_was(planned_run):
    run = planned_run()
    frozen = run.config()
    older = {**frozen, "config": {k: v for k, v in frozen["config"].items() if k != "parametrization"}}
    assert science_hash(older) == science_hash(frozen) == run.config()["hash"]
    unread = planned_run("parametrization.base_width=32")
    assert unread.config()["hash"] == run.config()["hash"]


def test_another_parametrization_is_another_run(planned_run):
    kinds = ("standard", "mup", "complete_p")
    hashes = {planned_run(f"parametrization={k}", "optim.width_exponent=0").config()["hash"] for k in kinds}
    assert len(hashes) == 3
    wider = planned_run("parametrization=mup", "parametrization.base_width=32")
    assert wider.config()["hash"] not in hashes


def test_two_rules_for_the_width_are_refused(toy_root):
    assert settings_of(toy_root, "parametrization=mup").optim.width_exponent == 0
    with pytest.raises(WrongInput, match=r"parametrization=mup.*add optim\.width_exponent=0"):
        settings_of(toy_root, "parametrization=mup", "optim.width_exponent=1")


def test_what_belongs_to_no_check_is_refused(toy_root):
    with pytest.raises(WrongInput, match="widths and depths belong to check=coordinates"):
        settings_of(toy_root, "widths=[32,64]")
    with pytest.raises(WrongInput, match="check=groups looks at model"):
        settings_of(toy_root, "check=groups", "cell=runs/a/b")
