"""The two ways a verb can fail, the exit code each one stands for, and how a failure is told."""


class HarnessError(Exception):
    """A failure with a one-line explanation: what is wrong, where, what to do."""

    exit_code = 2


class WrongInput(HarnessError):
    """The question itself is malformed: a bad config, a damaged file, an unknown name."""

    exit_code = 2


class CannotAnswer(HarnessError):
    """The question is fine, but what is on disk cannot answer it yet, or not honestly."""

    exit_code = 1


def in_one_line(error: BaseException) -> str:
    """What is not ours is told by its type as well."""
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, HarnessError) else f"{type(error).__name__}: {first}"
