"""Scaling-experiment harness: sweeps, scaling laws, sealed forecasts."""

from pathlib import Path

__version__ = "0.1.0"


def config_dir() -> Path:
    """The shipped configs of a wheel, else the checkout's."""
    shipped = Path(__file__).parent / "configs"
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "configs"
