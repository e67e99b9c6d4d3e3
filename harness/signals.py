"""Being asked to stop: a signal only sets a flag, which is looked at where stopping is safe."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, `harness stop`, and what batch systems send ahead of a time limit or a preemption."""


class StopFlag:
    """The last signal that asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def listen(self) -> None:
        """May be called again when somebody else has put a handler in front."""
        for number in SIGNALS:
            signal.signal(number, self.note)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for a while; then signals go again to whom they went before."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
