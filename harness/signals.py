"""Being asked to stop: a signal only sets a flag, which is looked at where stopping is safe."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, `harness stop`, and what batch systems send ahead of a time limit or a preemption."""

SHELL_SIGNAL = 128
"""A shell says this and the number of the signal for a process that one has ended."""


def death(status: int) -> str:
    """How a process came to an end that said nothing itself; `status` as a shell gives it."""
    if status <= SHELL_SIGNAL:
        return f"its process ended with exit code {status}; its output says why"
    known = {each.value: each.name for each in signal.Signals}
    name = known.get(status - SHELL_SIGNAL, "a signal")
    more = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{more}"


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
