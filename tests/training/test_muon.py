"""Muon beside AdamW: who updates what, what it costs, and that a run resumes to the bit."""

import json
from copy import deepcopy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.commands.checks import check_groups, coordinate_check
from harness.errors import WrongInput
from harness.model.attention import sdpa
from harness.model.init import build_model
from harness.shape import build_shape
from harness.training.cell import read_cell, science_hash
from harness.training.coordinates import Axis
from harness.training.optim import Together, build_optimizer, set_lr
from harness.training.optimizer_cost import state_bytes, step_flops
from harness.training.run import train
from harness.training.settings import OptimizerKind
from tests.conftest import compose
from tests.training.test_run import kill_at_step, science_of

MUON = ("model=27k", "optim=muon", "model.mixer=recurrent", "model.attention_every=2")
WIDE = ("model.width=128", "model.n_heads=8", "model.mlp_hidden=384", "parametrization=complete_p")


def built(toy_root, *overrides):
    settings = compose(toy_root, "train", [*MUON, *overrides])
    shape = build_shape(settings.model, 256, settings.context)
    model = build_model(shape, sdpa, settings.init, settings.parametrization, seed=0)
    return model, build_optimizer(model, settings.optim, 0.01)


def step(model, optimizer, size=0.1):
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.grad = size * torch.randn_like(weight)
    optimizer.step()


def test_muon_has_the_hidden_matrices_and_adamw_the_rest(toy_root):
    model, optimizer = built(toy_root)
    muon, adamw = ({id(w) for g in part.param_groups for w in g["params"]} for part in optimizer.parts)
    for name, weight in model.named_parameters():
        hidden = name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name
        assert (id(weight) in muon, id(weight) in adamw) == (hidden, not hidden), name
    assert [type(part).__name__ for part in optimizer.parts] == ["Muon", "AdamW"]


def test_its_steps_are_of_adams_size_and_orthogonal(toy_root):
    model, optimizer = built(toy_root, "optim.weight_decay=0")
    before = model.blocks[0].mlp.down.weight.detach().clone()
    step(model, optimizer)
    change = model.blocks[0].mlp.down.weight.detach() - before
    rms = change.square().mean().sqrt().item() / 0.01
    assert rms == pytest.approx(0.2, rel=0.3)  # 0.2 as in arXiv:2502.16982; the iteration is inexact
    values = torch.linalg.svdvals(change)
    assert values.max() / values.min() < 3


def test_wide_groups_follow_the_spectral_rule(toy_root):
    model, optimizer = built(toy_root, *WIDE)
    (hidden,) = optimizer.parts[0].param_groups
    assert (hidden["lr"], hidden["weight_decay"]) == pytest.approx((0.01 / 2**0.5, 0.1 * 2**0.5))
    set_lr(optimizer, 0.001)
    assert hidden["lr"] == pytest.approx(0.001 / 2**0.5)
    assert {group["lr"] for group in optimizer.parts[1].param_groups} == {0.001}
    assert len(list(model.parameters())) == sum(len(g["params"]) for g in optimizer.param_groups)


def test_a_restored_pair_steps_alike(toy_root):
    model, optimizer = built(toy_root)
    step(model, optimizer)
    saved, weights = deepcopy(optimizer.state_dict()), deepcopy(model.state_dict())
    step(model, optimizer, 0.2)
    other, restored = built(toy_root)
    other.load_state_dict(weights)
    restored.load_state_dict(saved)
    set_lr(restored, 0.01)
    step(other, restored, 0.2)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_memory_and_flops_are_those_of_the_tensors(toy_root):
    model, optimizer = built(toy_root)
    with FlopCounterMode(display=False) as counter:
        step(model, optimizer)
    assert counter.get_total_flops() == step_flops(model.shape, OptimizerKind.muon)
    assert step_flops(model.shape, OptimizerKind.adamw) == 0
    tensors = [
        tensor
        for part in optimizer.parts
        for state in part.state.values()
        for tensor in state.values()
        if tensor.ndim
    ]
    held = sum(t.numel() * t.element_size() for t in [*tensors, *model.parameters(), *model.parameters()])
    assert held == state_bytes(model.shape, OptimizerKind.muon)


def test_adamws_memory_is_that_of_its_tensors(toy_root):
    model, optimizer = built(toy_root, "optim=adamw")
    assert not isinstance(optimizer, Together)
    step(model, optimizer)
    moments = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    held = sum(4 * t.numel() for t in [*moments, *model.parameters(), *model.parameters()])
    assert held == state_bytes(model.shape, OptimizerKind.adamw)


def test_killed_it_ends_like_an_undisturbed_run(planned_run):
    changes = (*MUON, "horizon.tokens=30_000")
    calm = planned_run(*changes, "group=calm")
    stormy = planned_run(*changes, "group=stormy", "saving.checkpoint_seconds=0")
    record = train(calm)
    kill_at_step(stormy, 20)
    train(stormy)
    found, rows = science_of(stormy)
    differ = {"group", "run_id", "config_hash"}
    expected = record.science()
    assert {k: v for k, v in found.items() if k not in differ} == {
        k: v for k, v in expected.items() if k not in differ
    }
    assert rows == science_of(calm)[1]
    assert (record.optimizer, record.mixer, record.attention_every) == ("muon", "recurrent", 2)
    assert record.optimizer_flops == record.steps * step_flops(read_cell(calm).shape, OptimizerKind.muon)


def test_the_coordinate_check_is_flat_over_width(toy_root):
    overrides = ["model=27k", "optim=muon", "parametrization=mup", "horizon.batch_tokens=256"]
    found = coordinate_check(compose(toy_root, "train", overrides), [32, 64, 128], [1, 2])
    assert found.flat(Axis.width)


def test_groups_show_the_recurrent_layer(toy_root, capsys):
    check_groups(compose(toy_root, "train", [*MUON, *WIDE, "format=json"]))
    weights = {weight["name"]: weight for weight in json.loads(capsys.readouterr().out)["weights"]}
    assert weights["blocks.*.recurrent.taps"]["kind"] == "channel"
    assert weights["blocks.*.recurrent.taps"]["init_std"] is None
    assert weights["blocks.*.recurrent.inward.weight"]["multipliers"]["lr"] == pytest.approx(2**-0.5)


def test_a_setting_at_its_default_changes_no_hash_and_is_not_written(planned_run):
    run = planned_run()
    spelled_out = planned_run("model.recurrence=1", "model.mixer=attention", "optim.momentum=0.95")
    assert spelled_out.path == run.path
    frozen = run.config()
    for part in (frozen["config"]["model"], frozen["shape"], frozen["config"]["optim"]):
        assert not part.keys() & {"recurrence", "mixer", "window", "momentum", "state_size"}
    assert science_hash(frozen) == frozen["hash"]


def test_every_variant_is_a_run_of_its_own_and_comes_back_from_its_file(planned_run):
    changes = [
        ["model.window=8"],
        ["model.window=8", "model.full_every=2"],
        ["model.mixer=recurrent"],
        ["model.mixer=recurrent", "model.attention_every=2"],
        ["model.recurrence=2"],
        ["model.recurrence=2", "model.prelude=1"],
        ["optim=muon"],
        ["optim=muon", "optim.momentum=0.9"],
        ["tokenizer=bytes"],
    ]
    runs = [planned_run("model=100k", *one) for one in changes]
    assert len({run.config()["hash"] for run in runs}) == len(changes)
    for run in runs:
        cell = read_cell(run)
        assert cell.config_hash == run.config()["hash"]
        assert cell.shape == build_shape(cell.config.model, 256, 32)


def test_a_bad_value_is_one_line(toy_root):
    with pytest.raises(WrongInput, match=r"^optim\.momentum must lie in \[0, 1\), not 1\.5$"):
        compose(toy_root, "train", ["optim=muon", "optim.momentum=1.5"])
    with pytest.raises(WrongInput, match=r"^model\.window bounds attention and no layer attends"):
        compose(toy_root, "train", ["model.mixer=recurrent", "model.window=4"])
