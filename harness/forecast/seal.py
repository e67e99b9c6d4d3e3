"""A forecast written before the run, and opened after it.

The file carries its own SHA-256, so an edit shows. That guards against a slip of the hand, not against
someone who also recomputes the hash; a commit or a mail of the hash does.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer, WrongInput
from harness.forecast.gate import Verdict
from harness.forecast.predict import Forecast
from harness.runs import content_hash, read_json, write_json

SEAL_VERSION = 1
PACKAGES = ("scaling-harness", "numpy", "scipy")
NEEDED = ("version", "sealed_at", "versions", "forecast", "sha256")


@dataclass(frozen=True)
class SealedForecast:
    """A verified seal. `forecast` is `Forecast.to_json()` as it was written; `sealed_at` is UTC, ISO 8601."""

    path: Path
    sealed_at: datetime
    sha256: str
    forecast: dict[str, Any]

    @property
    def loss(self) -> float:
        return float(self.forecast["loss"])

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.forecast["interval"]
        return float(low), float(high)

    @property
    def target(self) -> dict[str, Any]:
        found: dict[str, Any] = self.forecast["target"]
        return found


def seal(path: Path, forecast: Forecast, now: datetime | None = None) -> SealedForecast:
    """Write the forecast once, atomically. A seal is never replaced.

    Raises CannotAnswer for a refused forecast, WrongInput when `path` already exists.
    """
    if forecast.verdict is Verdict.refused:
        raise CannotAnswer(f"a refused forecast is not sealed: {'; '.join(forecast.reasons)}")
    if path.exists():
        raise WrongInput(f"{path} already exists; a sealed forecast is never overwritten, give another path")
    body = {
        "version": SEAL_VERSION,
        "sealed_at": (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "forecast": forecast.to_json(),
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    write_json(beside, {**body, "sha256": content_hash(body)})
    try:
        os.link(beside, path)  # fails, rather than replaces, when another forecast was quicker
    except FileExistsError as error:
        raise WrongInput(f"{path} was sealed by another process at the same moment") from error
    finally:
        beside.unlink(missing_ok=True)
    return open_seal(path)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def open_seal(path: Path) -> SealedForecast:
    """Read and verify. Raises WrongInput when the file is missing, not a forecast, or was edited."""
    value = read_json(path)
    if not isinstance(value, dict) or any(name not in value for name in NEEDED):
        raise WrongInput(f"{path} is not a sealed forecast (it lacks {', '.join(NEEDED)})")
    body = {name: item for name, item in value.items() if name != "sha256"}
    if not content_is_finite(body) or content_hash(body) != value["sha256"]:
        raise WrongInput(f"{path} was edited after it was sealed (its SHA-256 does not match)")
    return SealedForecast(
        path=path,
        sealed_at=parse_time(body["sealed_at"], path),
        sha256=value["sha256"],
        forecast=body["forecast"],
    )


def content_is_finite(value: Any) -> bool:
    """JSON as Python reads it may hold NaN, which no seal was ever written with."""
    if isinstance(value, dict):
        return all(content_is_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(content_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def parse_time(text: str, where: Path) -> datetime:
    """An ISO 8601 time with a zone. Raises WrongInput on anything else."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise WrongInput(f"{where}: {text!r} is not an ISO 8601 time") from error
    if found.tzinfo is None:
        raise WrongInput(
            f"{where}: the time {text!r} has no zone; write UTC, such as 2026-01-31T12:00:00+00:00"
        )
    return found
