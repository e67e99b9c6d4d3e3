import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.training.schedule import ScheduleConfig, ScheduleKind, build_schedule


def rates(steps: int = 100, batch: int = 10, **changes: object) -> list[float]:
    config = ScheduleConfig(**{"warmup_tokens": 100, "warmup_fraction": 0.1, **changes})
    lr_at = build_schedule(config, 2.0, steps, batch)
    return [lr_at(step) for step in range(steps)]


def test_wsd_warms_up_stays_and_cools_down_by_one_minus_sqrt():
    lr = rates(cooldown_fraction=0.25)
    assert lr[0] == pytest.approx(2.0 / 11)
    assert lr[10:75] == [2.0] * 65
    assert lr[75 + 5] == pytest.approx(2.0 * (1 - (6 / 26) ** 0.5))
    assert 0 < lr[-1] < 0.05 * 2.0


def test_cosine_passes_the_middle_and_ends_near_its_floor():
    lr = rates(kind=ScheduleKind.cosine, final_fraction=0.1, warmup_tokens=0)
    assert lr[49] == pytest.approx(2.0 * 0.55, rel=0.02)
    assert lr[-1] == pytest.approx(0.2, rel=0.01)
    assert lr == sorted(lr, reverse=True)


def test_constant_stays():
    assert set(rates(kind=ScheduleKind.constant)[10:]) == {2.0}


@given(
    kind=st.sampled_from(ScheduleKind),
    steps=st.integers(1, 400),
    warmup=st.integers(0, 5000),
    cooldown=st.floats(0, 0.9),
)
def test_every_rate_is_positive_and_at_most_the_peak(kind, steps, warmup, cooldown):
    lr = rates(steps, kind=kind, warmup_tokens=warmup, cooldown_fraction=cooldown)
    assert all(0 < rate <= 2.0 for rate in lr)


def test_warmup_is_capped_on_short_runs():
    assert rates(steps=20, warmup_tokens=10_000, warmup_fraction=0.1)[2] == 2.0


def test_overlapping_phases_are_refused():
    with pytest.raises(ValueError, match="longer than the run"):
        ScheduleConfig(warmup_fraction=0.5, cooldown_fraction=0.6)
