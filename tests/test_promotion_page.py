"""The page about promotion says what happens."""

import doctest
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_its_example_runs():
    found = doctest.testfile(str(DOCS / "promotion.md"), module_relative=False)
    assert found.attempted > 10
    assert found.failed == 0
