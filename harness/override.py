"""A setting as one types it, whatever its value."""

from __future__ import annotations

import re

PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_/][A-Za-z0-9_./-]*", re.IGNORECASE)
"""What Hydra's grammar takes for text without quotes."""


def override(key: str, value: str) -> str:
    """One word of the command line; a shell wants it quoted once more (`shlex.join`)."""
    return f"{key}={value}" if PLAIN.fullmatch(value) else f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """Within quotes Hydra takes a backslash for itself, but for those right before a quote."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + (found[2] and '\\"'), value) + '"'
