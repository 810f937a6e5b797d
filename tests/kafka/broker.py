"""Apache Kafka on this machine: real brokers for the tests, and for a person by ``make kafka``.

The jars come through Maven, as ``pom.xml`` pins them, once; after that nothing needs a network. A cluster
belongs to a *keeper*, a process of its own to which its users hold a connection. When the last of them has
gone, however it went, the keeper ends its brokers and removes their directory: the kernel closes the
connections of a process that was killed, and a broker is killed with its keeper.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import json
import os
import random
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

POM: Final = Path(__file__).with_name("pom.xml")
BUILD: Final = Path(__file__).resolve().parents[2] / "build" / "kafka"
JAVA: Final = 17  # what Kafka 4 needs at least

_MAVEN_S: Final = 900  # a first download of some 45 MB over a slow line
_READY_S: Final = 120  # two seconds on an idle machine
_STOP_S: Final = 30  # for an orderly end; then it is killed
_PORTS: Final = range(20_000, 32_000)  # below the ports that the system gives to outgoing connections
_LOG_LINES: Final = 25
_HEAP: Final = ("-Xms128m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_QUICK: Final = ("-XX:TieredStopAtLevel=1",)  # a short life: half the work to start, no peak speed
_PR_SET_PDEATHSIG: Final = 1
_CLUSTER_ID: Final = "penstock-on-this-machine"

_SETTINGS: Final[Mapping[str, object]] = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",  # a topic that was deleted, or misspelt, does not come by itself
    "log.retention.ms": -1,  # events are replayed with the times they had, which may be years ago
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "broker.heartbeat.interval.ms": 200,
    "broker.session.timeout.ms": 3000,  # a killed broker loses its leadership after this
    "controller.quorum.election.timeout.ms": 500,
    "controller.quorum.fetch.timeout.ms": 1000,
    "num.io.threads": 4,
    "num.network.threads": 2,
    "log.cleaner.dedupe.buffer.size": 8 << 20,
    "log.cleaner.backoff.ms": 1000,
    "log.index.size.max.bytes": 1 << 20,
}


class BrokerError(RuntimeError):
    """Kafka cannot be had, started or reached; the message shows what it said last."""


class Cluster:
    """Brokers of one cluster, numbered from 1; a connection to the process that keeps them.

    Attributes
    ----------
    bootstrap : str
        Addresses for clients, with commas.
    nodes : range
        Numbers of its brokers.
    directory : Path
        Where each broker's data and log are: ``node-1/console.log``.
    """

    def __init__(self, connection: socket.socket, directory: Path, ports: Sequence[int]) -> None:
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.nodes = range(1, len(ports) + 1)
        self.directory = directory
        self._ports = ports
        self._connection = connection
        self._replies = connection.makefile("rb")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *nodes: int) -> None:
        """Start brokers (none named: all) that are stopped, and wait until they serve."""
        for node in nodes or self.nodes:
            self._ask("start", node)
        for node in nodes or self.nodes:
            self._wait_for_port(node)
        self._wait(lambda: not set(nodes or self.nodes) - self._living(), "brokers in the cluster")

    def stop(self, *nodes: int) -> None:
        """Stop brokers (none named: all) in order: they hand over what they lead, if there is another."""
        for node in nodes or self.nodes:
            self._ask("stop", node)

    def kill(self, *nodes: int) -> None:
        """Kill brokers (none named: all), as a power cut does. Others lead after some 3 s."""
        for node in nodes or self.nodes:
            self._ask("kill", node)

    def pid(self, node: int) -> int | None:
        """Return a broker's process id; None if it does not run."""
        pid: int | None = self._ask("pid", node)
        return pid

    def create(self, topic: str, partitions: int = 1, **config: str | int) -> None:
        """Create a topic, copied to every broker of the cluster, and wait until it can be used.

        ``cleanup_policy="compact"`` sets the topic's ``cleanup.policy``, and so on.
        """
        from confluent_kafka.admin import NewTopic

        given = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=len(self.nodes), config=given)
        self._admin.create_topics([new], operation_timeout=30)[topic].result(30)
        self._wait(
            lambda: all((self.leader(topic, i) or 0) > 0 for i in range(partitions)), f"topic {topic!r}"
        )

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """Return the number of the broker that leads a partition; None if there is none now."""
        metadata = self._admin.list_topics(topic, timeout=10)
        partitions = metadata.topics[topic].partitions
        leader: int = partitions[partition].leader if partition in partitions else -1
        return leader if leader in self.nodes else None

    def in_sync(self, topic: str, partition: int = 0) -> set[int]:
        """Return the numbers of the brokers whose copy of a partition is complete."""
        partitions = self._admin.list_topics(topic, timeout=10).topics[topic].partitions
        return set(partitions[partition].isrs) if partition in partitions else set()

    def close(self, *, stop: bool = False) -> None:
        """Let go of the brokers, which ends them if no other process uses them; `stop` ends them in order."""
        with contextlib.suppress(OSError, BrokerError):
            if stop:
                self.stop()
            self._connection.shutdown(socket.SHUT_WR)
            self._replies.read()  # until the keeper is done
        self._replies.close()
        self._connection.close()

    def _ask(self, verb: str, node: int) -> Any:
        if node not in self.nodes:
            raise ValueError(f"no broker {node}: they are {', '.join(map(str, self.nodes))}")
        self._connection.sendall(json.dumps([verb, node]).encode() + b"\n")
        line = self._replies.readline()
        if not line:
            raise BrokerError(f"the keeper of the brokers is gone{tail(self.directory / 'keeper.log')}")
        reply = json.loads(line)
        if "error" in reply:
            raise BrokerError(f"{reply['error']}{tail(self._log(node))}")
        return reply["ok"]

    def _log(self, node: int) -> Path:
        return self.directory / f"node-{node}" / "console.log"

    def _wait_for_port(self, node: int) -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(self._address(node), 1.0):
                return
            if self.pid(node) is None:
                raise BrokerError(f"broker {node} ended while it started{tail(self._log(node))}")
            if time.monotonic() > deadline:
                raise BrokerError(f"broker {node} is not there after {_READY_S} s{tail(self._log(node))}")
            time.sleep(0.05)

    def _address(self, node: int) -> tuple[str, int]:
        return "127.0.0.1", self._ports[node - 1]

    def _living(self) -> set[int]:
        return {node.id for node in self._admin.describe_cluster(request_timeout=5).result(10).nodes}

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + _READY_S
        last: object = "no answer"
        while time.monotonic() < deadline:
            try:
                if done():
                    return
                last = "not yet"
            except (KafkaException, KeyError, TimeoutError) as error:
                last = error
            time.sleep(0.05)
        logs = "".join(tail(self._log(node)) for node in self.nodes)
        raise BrokerError(f"waited {_READY_S} s for {what} ({last}){logs}")

    @functools.cached_property
    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        # It meets brokers that are down, and says so on stderr if it is let.
        quick = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 250, "socket.timeout.ms": 10_000}
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, **quick})


def tail(log: Path) -> str:
    """Return the end of a log, to be put behind a message."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return ""
    return "\n  ".join([f"\n{log}:", *lines])


@functools.cache
def unavailable() -> str | None:
    """Say why there can be no broker on this machine; None if nothing is missing."""
    java, maven = shutil.which("java"), shutil.which("mvn")
    if java is None:
        return "no java on the PATH, which a Kafka broker needs"
    banner = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < JAVA:
        return f"a Kafka broker needs Java {JAVA} or newer; this one is {banner.splitlines()[:1]}"
    if maven is None and not _classpath_file().exists():
        return "no mvn on the PATH, which fetches the Kafka broker"
    return None


def _classpath_file() -> Path:
    return BUILD / f"{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}.classpath"


def classpath(*, say: Callable[[str], object] | None = None) -> str:
    """Return the broker's class path, fetched through Maven if this machine does not have it yet.

    Raises
    ------
    BrokerError
        If Maven cannot get it; shows what Maven said.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    file = _classpath_file()
    with locked(BUILD / "maven.lock"):
        if file.exists() and all(map(os.path.exists, (known := file.read_text().strip()).split(os.pathsep))):
            return known
        if say is not None:
            say("fetching Apache Kafka through Maven (some 45 MB, once) ...")
        # The class path goes to a file beside, which takes the name when it is whole.
        part = file.with_suffix(".part")
        goal = [
            "mvn", "--batch-mode", "--quiet", "--file", str(POM),
            "dependency:build-classpath", f"-Dmdep.outputFile={part}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                goal,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_MAVEN_S,
            )
        except FileNotFoundError:
            raise BrokerError("no mvn on the PATH, which fetches the Kafka broker") from None
        except subprocess.TimeoutExpired:
            raise BrokerError(f"Maven did not get Kafka within {_MAVEN_S} s") from None
        if done.returncode:
            said = "\n  ".join(done.stdout.splitlines()[-_LOG_LINES:])
            raise BrokerError(f"Maven cannot get Kafka:\n  {said}")
        part.replace(file)
        return file.read_text().strip()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, against other processes too; the system frees it if this one dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def launch(nodes: int = 1, *, port: int | None = None, keep: Path | None = None) -> Cluster:
    """Start a cluster of one's own and wait until it serves.

    Parameters
    ----------
    nodes : int
        Each is broker and controller; three go on with any one of them stopped.
    port : int, optional
        Of the first broker, for clients; a free one if not given.
    keep : Path, optional
        A directory that outlives the cluster, data and all. A temporary one if not given.

    Raises
    ------
    BrokerError
        If Kafka cannot be had or does not start.
    """
    java_path = classpath()
    while True:
        cluster = _keeper(java_path, nodes, port, keep)
        try:
            cluster.start()
        except BrokerError as error:
            # Between choosing a port and binding it, somebody else may have taken it.
            taken = port is None and "Address already in use" in str(error)
            cluster.close()
            if not taken:
                raise
        except BaseException:
            cluster.close()
            raise
        else:
            return cluster


def shared(directory: Path, nodes: int) -> Cluster:
    """Join the cluster of so many nodes that is shared below `directory`; the first to come starts it."""
    with locked(directory / f"kafka-{nodes}.lock"):
        note = directory / f"kafka-{nodes}.json"
        with contextlib.suppress(OSError):
            there = json.loads(note.read_text())
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(Path(there["directory"]) / "keeper"))
            except OSError:
                connection.close()
                raise
            return Cluster(connection, Path(there["directory"]), there["ports"])
        cluster = launch(nodes)
        note.write_text(json.dumps({"directory": str(cluster.directory), "ports": cluster._ports}))
        return cluster


def _keeper(java_path: str, nodes: int, port: int | None, keep: Path | None) -> Cluster:
    """Start a keeper whose brokers are stopped as yet, and connect to it."""
    ports = _free_ports(2 * nodes)
    if port is not None:
        ports[0] = port
    directory = Path(tempfile.mkdtemp(prefix="penstock-kafka-")) if keep is None else keep
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "keeper"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        arguments = ["keep", str(directory), java_path, str(listener.fileno()), *map(str, ports)]
        if keep is None:
            arguments.append("--remove")
        # It goes into the background by itself, so that it is nobody's child and may outlive its first user.
        subprocess.run(
            [sys.executable, __file__, *arguments], pass_fds=[listener.fileno()], check=True, timeout=60
        )
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
    return Cluster(connection, directory, ports[:nodes])


def _free_ports(n: int) -> list[int]:
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == n:
            return ports
    raise BrokerError("no free port between 20000 and 32000")


class _Keeper:
    """Owns the brokers' processes; does what its users ask, and ends when the last of them has gone."""

    def __init__(self, directory: Path, java_path: str, ports: Sequence[int], remove: bool) -> None:
        self._directory = directory
        self._java = ["java", *_HEAP, *(_QUICK if remove else ()), "-Dlog4j2.level=INFO", "-cp", java_path]
        self._client_ports = ports[: len(ports) // 2]
        self._controller_ports = ports[len(ports) // 2 :]
        self._remove = remove
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self, listener: socket.socket) -> None:
        """Answer users until none is left."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            users: dict[socket.socket, bytes] = {}
            while True:
                for key, _ in selector.select():
                    if key.fileobj is listener:
                        user, _ = listener.accept()
                        selector.register(user, selectors.EVENT_READ)
                        users[user] = b""
                        continue
                    user = key.fileobj  # type: ignore[assignment]
                    with contextlib.suppress(ConnectionError):
                        if data := user.recv(4096):
                            *lines, users[user] = (users[user] + data).split(b"\n")
                            for line in lines:
                                user.sendall(json.dumps(self._answer(*json.loads(line))).encode() + b"\n")
                            continue
                    selector.unregister(user)
                    del users[user]
                    if not users:
                        listener.close()
                        self.end()
                        user.close()
                        return
                    user.close()

    def end(self) -> None:
        """Kill what still runs, and tidy up."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        if self._remove:
            shutil.rmtree(self._directory, ignore_errors=True)
        else:
            (self._directory / "keeper").unlink(missing_ok=True)

    def _answer(self, verb: str, node: int) -> dict[str, Any]:
        process = self._processes.get(node)
        running = process is not None and process.poll() is None
        try:
            if verb == "pid":
                return {"ok": process.pid if process is not None and running else None}
            if verb == "start" and not running:
                self._start(node)
            elif verb == "stop" and process is not None and running:
                process.terminate()
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            elif verb == "kill" and process is not None and running:
                process.kill()
                process.wait()
        except (OSError, subprocess.SubprocessError) as error:
            return {"error": f"broker {node}: {error}"}
        return {"ok": None}

    def _start(self, node: int) -> None:
        home = self._directory / f"node-{node}"
        home.mkdir(exist_ok=True)
        properties = home / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings(node).items()))
        serve = ["exec", *self._java, "kafka.Kafka", str(properties)]
        if not (home / "data" / "meta.properties").exists():
            tool = [*self._java, "kafka.tools.StorageTool", "format", "--config", str(properties)]
            serve = [*tool, "--cluster-id", _CLUSTER_ID, "&&", *serve]
        command = " ".join(word if word == "&&" else shlex.quote(word) for word in serve)
        with (home / "console.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # safe: the keeper has one thread
            )

    def _settings(self, node: int) -> dict[str, object]:
        copies = len(self._client_ports)
        voters = ",".join(f"{i}@127.0.0.1:{port}" for i, port in enumerate(self._controller_ports, 1))
        client = f"PLAINTEXT://127.0.0.1:{self._client_ports[node - 1]}"
        return {
            **_SETTINGS,
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": f"{client},CONTROLLER://127.0.0.1:{self._controller_ports[node - 1]}",
            "advertised.listeners": client,
            "log.dirs": self._directory / f"node-{node}" / "data",
            "default.replication.factor": copies,
            "min.insync.replicas": min(2, copies),
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": min(2, copies),
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": min(2, copies),
        }


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep(arguments: argparse.Namespace) -> None:
    """Be the keeper, in the background."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    # Whoever reads the output of a user's process must not wait for the keeper.
    log = os.open(arguments.directory / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((0, null), (1, log), (2, log)):
        os.dup2(new, old)
    keeper = _Keeper(arguments.directory, arguments.class_path, arguments.ports, arguments.remove)
    with socket.socket(fileno=arguments.listener) as listener:
        keeper.serve(listener)


def _serve(arguments: argparse.Namespace) -> int:
    """Run one broker for a person, until Ctrl-C."""
    reason = unavailable()
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", arguments.port)) == 0:
            reason = f"something listens on 127.0.0.1:{arguments.port} already"
    if reason is not None:
        print(f"kafka: {reason}", file=sys.stderr)
        return 1
    try:
        classpath(say=print)
        cluster = launch(port=arguments.port, keep=BUILD / f"data-{arguments.port}")
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    print(
        f"Kafka listens on localhost:{arguments.port}; its data stay in "
        f"{os.path.relpath(cluster.directory)}.\n"
        "In another terminal:\n"
        "  .venv/bin/penstock produce configs/phishing.yaml --to configs/kafka.yaml\n"
        "  .venv/bin/penstock run configs/kafka.yaml\n"
        "Ctrl-C stops it.",
        flush=True,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while cluster.pid(1) is not None:
            time.sleep(0.5)
        print(f"kafka: the broker ended{tail(cluster.directory / 'node-1' / 'console.log')}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nstopping ...", flush=True)
        code = 0
    finally:
        cluster.close(stop=True)
    return code


def _fetch(arguments: argparse.Namespace) -> int:
    del arguments
    try:
        classpath(say=print)
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run from the command line: see ``make kafka``."""
    parser = argparse.ArgumentParser(description="A Kafka broker on this machine, from Maven's jars.")
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="run one until Ctrl-C")
    serve.add_argument("--port", type=int, default=9092)
    serve.set_defaults(function=_serve)
    fetch = commands.add_parser("fetch", help="only get the jars")
    fetch.set_defaults(function=_fetch)
    keep = commands.add_parser("keep")  # started by `_keeper`
    keep.add_argument("directory", type=Path)
    keep.add_argument("class_path")
    keep.add_argument("listener", type=int)
    keep.add_argument("ports", type=int, nargs="+")
    keep.add_argument("--remove", action="store_true")
    keep.set_defaults(function=_keep)
    arguments = parser.parse_args()
    return arguments.function(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
