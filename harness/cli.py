"""The command line: `harness <verb> [key=value ...]`. Each verb is one module of `harness.commands`."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import textwrap
from pathlib import Path

from harness import __version__, config_dir
from harness.errors import HarnessError, in_one_line

VERBS = {
    "prepare": "read a corpus, train its tokenizer, write token shards",
    "plan": "the cells of a sweep, frozen, and what they will take; spend nothing",
    "train": "train one run",
    "sweep": "train every planned cell that is not done",
    "status": "where every planned cell stands",
    "stop": "save and stop what works through a sweep",
    "watch": "how running cells will end, and which to kill; the same on old logs",
    "fit": "fit a scaling law to finished runs or a table",
    "backtest": "what a forecast from these runs would have been worth",
    "forecast": "predict a larger run and seal the prediction",
    "score": "compare a sealed forecast with the run it was about",
    "report": "write one self-contained HTML page of a sweep and its forecast",
    "bench": "measure speed against a named reference",
}

TRACEBACK = "HARNESS_TRACEBACK"
HELP = ("-h", "--help")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done; 1 the question cannot be answered; 2 wrong input; 130 stopped by the user."""
    open_closed_streams()
    try:
        code = dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except OSError as error:  # of stdout alone; the interpreter must not flush it again as it ends
        if not isinstance(error, BrokenPipeError):  # else whoever reads has read enough
            print(f"harness: {in_one_line(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def open_closed_streams() -> None:
    """The number of a standard stream that is closed would be that of the next file to be opened, of a run's
    metrics say, and what a library prints would go into that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP:
        print(overview())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        print(
            f"harness: there is no verb {name!r}{hint(name)} choose from {', '.join(VERBS)}", file=sys.stderr
        )
        return 2
    if any(word in HELP for word in rest):
        print(verb_help(name))
        return 0
    return run(name, rest)


def hint(name: str) -> str:
    """The verb that was perhaps meant."""
    from difflib import get_close_matches

    meant = get_close_matches(name.lower(), VERBS, 1)
    return f", did you mean {meant[0]}?" if meant else ";"


def run(name: str, rest: list[str]) -> int:
    sys.argv = [f"harness {name}", *rest]
    try:
        importlib.import_module(f"harness.commands.{name}").main()
    except HarnessError as error:
        print(f"harness {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"harness {name}: stopped; type the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"harness {name}: {in_one_line(error)} ({TRACEBACK}=1 shows where)", file=sys.stderr)
        return 1
    return 0


def overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {text}" for name, text in VERBS.items()]
    return "\n".join(
        [
            "usage: harness VERB [key=value ...]     (harness VERB --help for options and examples)",
            "",
            *lines,
            "",
            "exit codes: 0 done; 1 the question cannot be answered; 2 wrong input; 130 stopped",
        ]
    )


def verb_help(name: str) -> str:
    """The verb's own docstring and the groups it can choose from, read without importing anything."""
    source = Path(__file__).parent / "commands" / f"{name}.py"
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    groups = "\n".join(
        textwrap.fill(f"{group}={' '.join(options)}", 110, initial_indent="  ", subsequent_indent="      ")
        for group, options in config_groups()
    )
    return f"{text}\n\nGroups (any value inside one can be overridden, e.g. optim.lr=0.01):\n{groups}\n\n" + (
        "`harness " + name + " --cfg job` prints the whole resolved configuration."
    )


def config_groups() -> list[tuple[str, list[str]]]:
    folders = sorted(path for path in config_dir().iterdir() if path.is_dir())
    return [
        (folder.name, sorted((file.stem for file in folder.glob("*.yaml")), key=by_size))
        for folder in folders
    ]


def by_size(name: str) -> tuple[float, str]:
    """27k before 1.8m before 1.2b; names that are no size among themselves."""
    size = re.fullmatch(r"([\d.]+)([kmb])", name)
    return (float(size[1]) * {"k": 1e3, "m": 1e6, "b": 1e9}[size[2]] if size else 0.0, name)


if __name__ == "__main__":
    sys.exit(main())
