"""The prose of a Python file: its docstrings and comments, in the order they stand."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator

# `tokenize` needs about a second a megabyte; one regular expression that knows strings finds the same
# comments thirty times faster.
_STRING_OR_COMMENT = re.compile(
    r"""(?P<comment>\#[^\n]*)"""
    r'''|"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'''
    r"""|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"""
    r'''|"(?:\\.|[^"\\\n])*"'''
    r"""|'(?:\\.|[^'\\\n])*'""",
    re.DOTALL,
)
_DIRECTIVE = re.compile(
    r"#\s*(!|-\*-|type:|noqa|fmt:|pylint|mypy|pyright|ruff|isort|pragma|nosec|flake8)", re.I
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def prose(source: str) -> str | None:
    """Docstrings and comments of `source`, a blank line between passages; None when it does not parse."""
    try:
        passages = sorted([*_docstrings(source), *_comments(source)])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return "\n\n".join(text for _, text in passages if text) + "\n"


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        # Only statements hold definitions; walking into expressions would triple the time.
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            children = getattr(node, block, [])
            waiting.extend(children if isinstance(children, list) else [])
        if isinstance(node, _DOCUMENTED) and (text := _docstring(node)) is not None:
            yield node.body[0].lineno, text


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    first = node.body[0] if node.body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return None
    text = first.value.value
    # An escape such as "\ud800" is legal in source and is no text.
    return inspect.cleandoc(text).encode("utf-8", "replace").decode() if isinstance(text, str) else None


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Comments with their line (from 1); comments on lines that follow each other are one passage."""
    first, last, lines = 0, -1, list[str]()
    line, position = 1, 0
    for match in _STRING_OR_COMMENT.finditer(source):
        comment = match["comment"]
        if comment is None or _DIRECTIVE.match(comment):
            continue
        line += source.count("\n", position, match.start())
        position = match.start()
        if line != last + 1 and lines:
            yield first, "\n".join(lines)
            lines = []
        first, last = (first if lines else line), line
        lines.append(comment.lstrip("#").strip())
    if lines:
        yield first, "\n".join(lines)
