"""The end of a process: all that others have to say and to write, and then nothing more."""

import subprocess
import sys

import pytest

SCRIPT = """
from harness import ending
ending.prepare()
import atexit, sys, threading

class Module:
    def __del__(self):
        print("taken apart")

kept = Module()
kept.itself = kept
atexit.register(lambda: print("last words"))
threading.Thread(target=lambda: (threading.main_thread().join(), print("a thread"))).start()
sys.stdout.write("unflushed ")
"""


def ended(last: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT + last], capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("code", [0, 2, 130])
def test_everybody_is_heard_and_nothing_taken_apart(code):
    assert ended(f"ending.end({code})") == (code, "unflushed a thread\nlast words\n", "")


def test_an_error_ends_as_ever():
    code, out, err = ended("raise ValueError('planted')")
    assert (code, out) == (1, "unflushed a thread\nlast words\ntaken apart\n")
    assert "planted" in err


def test_nobody_reads_any_more():
    command = f"{sys.executable} -m harness --help | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600)
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
