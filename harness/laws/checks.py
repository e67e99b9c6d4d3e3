"""What a measured check says: a grade, the number it measured, and its limit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    ok = "ok"
    weak = "weak"
    failed = "failed"


@dataclass(frozen=True)
class Check:
    """One measured check. `value` is None when it could not be measured."""

    name: str
    grade: Grade
    value: float | None
    limit: float
    reason: str

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "grade": self.grade.value,
            "value": self.value,
            "limit": self.limit,
            "reason": self.reason,
        }


def grade(failed: bool, weak: bool = False) -> Grade:
    if failed:
        return Grade.failed
    return Grade.weak if weak else Grade.ok
