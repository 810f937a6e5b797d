"""The page on off-policy evaluation says what happens."""

import doctest
from pathlib import Path


def test_the_page_runs():
    page = Path(__file__).parents[2] / "docs" / "bandits.md"
    failed, attempted = doctest.testfile(str(page), module_relative=False)
    assert (failed, attempted > 10) == (0, True)
