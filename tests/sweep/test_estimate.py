import json

import pytest

from harness.shape import ModelConfig, ModelShape, build_shape
from harness.sweep.estimate import CostConfig, estimate, median_speeds, speed_key
from harness.sweep.plan import TimeBasis
from harness.training.memory import training_memory

MODEL = ModelConfig(name="t", width=64, depth=2, n_heads=4, head_dim=16, mlp_hidden=176)
SHAPE: ModelShape = build_shape(MODEL, 1024, 32)
TOKENS = 1000 * 16 * 32


def frozen(**hardware: object) -> dict:
    settings = {"device": "cpu", "activation_gib": 1.0, "peak_flops": None, **hardware}
    return {
        "config": {"hardware": settings, "attention": {"kind": "auto"}, "optim": {"kind": "adamw"}},
        "shape": {"width": 64, "depth": 2},
        "horizon": {"steps": 1000, "batch_sequences": 16, "context": 32},
    }


def test_time_is_unknown_until_measured_or_stated():
    nothing = estimate(SHAPE, 7, frozen(peak_flops=1e12), {}, CostConfig(price_per_device_hour=2.0))
    assert (nothing.seconds, nothing.basis, nothing.cost) == (None, TimeBasis.unknown, None)
    assert estimate(SHAPE, 7, frozen(), {}, CostConfig(mfu=0.5)).basis is TimeBasis.unknown


def test_a_stated_speed_is_a_share_of_the_peak():
    stated = estimate(SHAPE, 7, frozen(peak_flops=1e12), {}, CostConfig(mfu=0.5, price_per_device_hour=36.0))
    assert stated.basis is TimeBasis.stated
    assert stated.seconds == pytest.approx(SHAPE.training_flops(TOKENS) / 5e11)
    assert stated.cost == pytest.approx(stated.seconds / 100)


def test_what_was_measured_counts_before_what_is_stated():
    key = speed_key(frozen())
    speeds = median_speeds([(key, 100.0), (key, 0.0), (key, 300.0), (key, 200.0), ("other", 1.0)])
    measured = estimate(SHAPE, 7, frozen(peak_flops=1e12), speeds, CostConfig(mfu=0.5))
    assert measured.basis is TimeBasis.measured
    assert measured.seconds == pytest.approx(TOKENS / 200)


@pytest.mark.parametrize("change", ["shape", "batch", "device"])
def test_a_speed_of_another_shape_batch_or_device_is_not_taken(change):
    other = json.loads(json.dumps(frozen()))
    match change:
        case "shape":
            other["shape"]["width"] = 80
        case "batch":
            other["horizon"]["batch_sequences"] = 8
        case "device":
            other["config"]["hardware"]["device"] = "cuda"
    speeds = median_speeds([(speed_key(other), 100.0)])
    assert estimate(SHAPE, 7, frozen(), speeds, CostConfig()).basis is TimeBasis.unknown


def test_the_memory_of_a_cell_is_shown_as_it_was_estimated():
    memory = training_memory(SHAPE, 16).total
    assert estimate(SHAPE, memory, frozen(), {}, CostConfig()).memory_bytes == memory


def test_costs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"cost\.mfu"):
        CostConfig(mfu=40)
    with pytest.raises(ValueError, match="price"):
        CostConfig(price_per_device_hour=-1)
