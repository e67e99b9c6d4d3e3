import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.override import override

AWKWARD = [
    "/a b/c",
    "/a'b",
    "/a\\b",
    "/a\\",
    "/a\\'b",
    "/a\\\\b",
    "/ünï (1)/x=y",
    '/say "x"',
    "a,b",
    "{x}",
    "null",
    "1e5",
]


@pytest.mark.parametrize("value", ["/plain/path.d", "runs", *AWKWARD])
def test_hydra_reads_back_what_was_written(value):
    (found,) = OverridesParser.create().parse_overrides([override("cell", value)])
    assert found.value() == value and type(found.value()) is not bool


def test_what_is_plain_stays_plain():
    assert override("corpus.path", "/my/texts") == "corpus.path=/my/texts"
    assert shlex.join([override("corpus.path", "/my texts")]) == """'corpus.path="/my texts"'"""
