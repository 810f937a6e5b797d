"""Shared by every test."""

import fcntl
import importlib.util
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


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


@pytest.fixture(scope="session")
def broker(require: Callable[[str, bool, str], None]) -> ModuleType:
    """``tests/kafka/broker.py``: `launch` gives a cluster of one's own, with nodes to stop and start."""
    spec = importlib.util.spec_from_file_location("broker", Path(__file__).parent / "kafka" / "broker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reason = module.unavailable()
    if reason is None:
        try:
            module.classpath(say=lambda text: print(text, file=sys.__stderr__, flush=True))
        except module.BrokerError as error:
            reason = str(error)
    require("kafka", reason is None, reason or "")
    return module


@pytest.fixture(scope="session")
def _of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of this run, the same for every worker of it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def kafka_cluster(broker: ModuleType, _of_all_workers: Path) -> Iterator[Any]:
    """One broker for the whole run, shared by its workers: nobody stops it, and topics have new names."""
    with broker.shared(_of_all_workers, 1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka(kafka_cluster: Any) -> str:
    """Address of a broker that is shared by the whole run."""
    return kafka_cluster.bootstrap


@pytest.fixture
def new_topic(kafka_cluster: Any) -> Callable[..., str]:
    """``new_topic(partitions=4, cleanup_policy="compact")`` on the broker of `kafka`; returns its name."""

    def create(partitions: int = 1, **config: str | int) -> str:
        name = f"t-{uuid.uuid4().hex[:12]}"
        kafka_cluster.create(name, partitions, **config)
        return name

    return create


@pytest.fixture(scope="session")
def _three(broker: ModuleType, _of_all_workers: Path) -> Iterator[Any]:
    with broker.shared(_of_all_workers, 3) as cluster:
        yield cluster


@pytest.fixture
def kafka3(_three: Any, _of_all_workers: Path) -> Iterator[Any]:
    """Three brokers, this test's alone while it lasts: stop, kill and start them at will."""
    with (_of_all_workers / "kafka3.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _three.start()  # those that the test before left stopped
        yield _three
