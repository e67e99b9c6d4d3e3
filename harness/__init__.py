"""Scaling-experiment harness: sweeps, scaling laws, sealed forecasts."""

__version__ = "0.1.0"
