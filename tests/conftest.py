"""Shared by every test."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def require() -> Callable[[str, bool, str], None]:
    """Skip a test whose companion (a browser, a broker) is not there; fail where it must be.

    ``require("browser", available, "no Chromium on the PATH")``. The environment variable PENSTOCK_REQUIRE
    lists, with commas, the companions that must be there: a skip that nobody sees proves nothing.
    """
    required = {name.strip() for name in os.environ.get("PENSTOCK_REQUIRE", "").split(",")}

    def check(companion: str, available: bool, reason: str) -> None:
        if available:
            return
        if companion in required:
            pytest.fail(f"PENSTOCK_REQUIRE asks for {companion!r}: {reason}")
        pytest.skip(reason)

    return check
