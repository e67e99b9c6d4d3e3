"""What is known of a kernel on the card of this run: one line for its record."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernels.verdicts import Subject


def proof(subject: Subject, beside: str) -> tuple[bool, str]:
    """Whether the kernels of `subject` agreed with what they were compared with on this card, and the reason
    in words. Compares them where that has not been done yet (`kernels.verdicts`)."""
    from kernels.verdicts import Outcome, card_name, verdict

    found, card = verdict(subject), card_name(subject.device)
    match found.outcome:
        case Outcome.passed:
            return True, f"compared with {beside} on {card}"
        case Outcome.failed:
            return False, f"the kernels failed their comparison with {beside} on {card}: {found.said}"
        case Outcome.unavailable:
            return False, f"the kernels could not be compared with {beside} on {card}: {found.said}"


@cache
def warn(line: str) -> None:
    """Once a process, however many models it builds."""
    print(line, file=sys.stderr)
