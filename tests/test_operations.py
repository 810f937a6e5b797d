"""What an operator meets: checks beforehand, signals, faults, standing by. Each is one clear line."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from penstock import checkpoints, config, runner
from penstock.bandit_config import parse as parse_bandit
from penstock.checkup import checks
from penstock.tensors import read, write

PENSTOCK = [sys.executable, "-m", "penstock"]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A pipeline on a file of 3000 events, and everything that it writes, below one directory."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"x": i % 7, "y": i % 3, "label": int(i % 7 > 3)}) for i in range(3000)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return {
        "name": "clicks",
        "source": {"kind": "file", "path": "events.jsonl"},
        "learners": {"sgd": {"kind": "sgd", "bits": 14}},
        "shadow": {"refresh_every": 1000},
        "snapshots": {"path": "state/snapshots"},
        "checkpoint": {"path": "state/checkpoint", "every_events": 100},
        "dead_letters": {"path": "state/dead.jsonl"},
    }


def configured(given, **changes):
    Path("clicks.yaml").write_text(json.dumps({**given, **changes}))
    return "clicks.yaml"


def looked_at(given, **options):
    """Run the checks; return what each found, or the problem."""
    parse = parse_bandit if given.get("task") == "bandit" else config.parse
    found = checks(lambda: parse(given), **options)
    return {check.what: str(check.problem) if check.problem else f"ok {check.found}" for check in found}


def penstock(*arguments, **options):
    command = [*PENSTOCK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def start(*arguments, **options):
    return subprocess.Popen(
        [*PENSTOCK, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def until(done, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def digest_of(given):
    pipeline = config.parse(given)
    path = pipeline.checkpoint.path
    engine, _ = runner.parts(pipeline)
    engine.restore(checkpoints.load(path, config_hash=pipeline.hash()).state)
    return engine.digest()


class TestDryRun:
    def test_a_run_that_can_begin(self, given, tmp_path):
        path = configured(given)
        before = sorted(tmp_path.rglob("*"))
        done = penstock("run", path, "--dry-run")
        assert done.returncode == 0, done.stdout
        assert [line.split()[:2] for line in done.stdout.splitlines()] == [
            ["ok", "configuration"],
            ["ok", "directory"],
            ["ok", "snapshots"],
            ["ok", "dead"],
            ["ok", "lock"],
            ["ok", "checkpoint"],
            ["ok", "source"],
        ]
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_run_that_can_go_on(self, given):
        runner.run(config.parse(given))
        found = looked_at(given)
        assert found["checkpoint"] == "ok state/checkpoint: event 3,000"
        assert found["source"] == "ok nothing comes after the checkpoint"

    def test_a_wrong_configuration(self, given):
        done = penstock("run", configured(given, tik=3), "--dry-run")
        assert done.returncode == 2
        assert done.stdout.splitlines() == [
            "problem  configuration   clicks.yaml: `tik`: unknown key (did you mean `tick`?)"
        ]

    def test_every_problem_is_found_at_once(self, given):
        runner.run(config.parse(given))
        Path("state/file").write_text("")
        given["snapshots"] = {"path": "state/file/snapshots"}
        given["seed"] = 1
        given["source"] = {"kind": "file", "path": "gone.jsonl"}
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            given["monitor"] = {"port": port}
            with runner.only_writer(config.parse(given)):
                found = looked_at(given)
                done = penstock("run", configured(given), "--dry-run")
                waiting = looked_at(given, standby=True)
        assert found["snapshots"] == "state/file/snapshots: cannot write: Not a directory"
        assert found["lock"].startswith("another run is using the checkpoint state/checkpoint")
        assert "belongs to another configuration" in found["checkpoint"]
        assert found["source"].startswith("gone.jsonl")
        assert found["monitor"] == f"`monitor`: cannot listen on 127.0.0.1:{port}: Address already in use"
        assert done.returncode == 4
        assert sum(line.startswith("problem") for line in done.stdout.splitlines()) == 5
        assert waiting["lock"] == "ok another run is using the checkpoint state/checkpoint"
        assert waiting["monitor"].startswith("ok ")

    def test_what_cannot_be_read_or_written(self, given):
        runner.run(config.parse(given))
        previous = Path("state/checkpoint.previous")
        previous.unlink()
        previous.mkdir()
        Path("state/snapshots/serving.json").write_text("{")
        Path("state/dead").mkdir()
        found = looked_at({**given, "dead_letters": {"path": "state/dead"}})
        assert found["dead letters"] == "state/dead: cannot write: Is a directory"
        assert found["checkpoint"] == "state/checkpoint.previous: cannot write: is a directory"
        assert found["snapshots"].startswith("state/snapshots/serving.json is damaged")

    def test_a_checkpoint_where_none_can_be(self, given):
        done = penstock("run", configured(given, checkpoint={"path": "/dev/null/x"}), "--dry-run")
        assert done.returncode == 4
        assert "cannot write beside the checkpoint: /dev/null/x.lock" in done.stdout

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    def test_a_host_that_is_not_ours(self, given, host):
        path = configured(given, monitor={"host": host, "port": 0})
        looked, ran = penstock("run", path, "--dry-run"), penstock("run", path)
        assert (looked.returncode, ran.returncode) == (2, 2)
        said = f"`monitor`: cannot listen on {host}:0"
        assert said in looked.stdout
        assert said in ran.stderr

    def test_a_group_without_a_name(self, given):
        kafka = {"kind": "kafka", "bootstrap": "127.0.0.1:1", "topics": "a", "assignment": "group"}
        assert looked_at({**given, "source": kafka}) == {
            "configuration": "`assignment: group` needs `group`, the name of the group"
        }

    def test_feedback_that_has_gone(self, given):
        log = Path("log")
        log.mkdir()
        record = {"time": 1.0, "context": {}, "actions": ["a", "b"], "action": "a", "propensity": 0.5}
        lines = [json.dumps({**record, "id": f"d{i}", "time": float(i)}) for i in range(50)]
        (log / "decisions.jsonl").write_text("\n".join(lines) + "\n")
        (log / "rewards.jsonl").write_text("")
        bandit = {
            "task": "bandit",
            "source": {"kind": "feedback", "path": "log"},
            "policies": {"a": {"kind": "ucb1"}},
            "rewards": {"window_s": 5},
            "checkpoint": {"path": "state/bandit"},
        }
        assert looked_at(bandit)["source"] == "ok log: the next record can be read"
        runner.run(parse_bandit(bandit))
        assert looked_at(bandit)["source"] == "ok log: nothing comes after the checkpoint"
        (log / "decisions.jsonl").unlink()
        assert "decisions.jsonl" in looked_at(bandit)["source"]

    def test_no_broker(self, given):
        kafka = {"kind": "kafka", "bootstrap": "127.0.0.1:1", "topics": ["a", "b"], "connect_timeout_s": 0.5}
        found = looked_at({**given, "source": kafka})
        assert found["topic"].startswith("no Kafka broker answers at 127.0.0.1:1 within 0.5 s")


class TestFaults:
    def test_a_full_disk_ends_the_run_and_the_old_state_stays(self, given):
        runner.run(config.parse({**given, "source": {**given["source"], "limit": 1000}}))
        digest, letters = digest_of(given), Path("state/dead.jsonl").stat().st_size

        def small() -> None:  # no file may be larger: what a disk says that is full
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        done = penstock("run", configured(given), "--log", "json", preexec_fn=small)
        assert done.returncode == 4
        (line,) = [json.loads(line) for line in done.stderr.splitlines() if '"failed"' in line]
        assert line["message"].startswith("cannot write state/")
        assert line["message"].endswith("File too large")
        assert (digest_of(given), Path("state/dead.jsonl").stat().st_size) == (digest, letters)
        assert penstock("run", "clicks.yaml").stdout.startswith("done at event 3,000 (2,000 learned")

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    def test_a_full_file_system(self, given, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=False)
        if mounted.returncode:
            pytest.skip("tmpfs cannot be mounted here")
        try:
            given = {**given, "snapshots": None, "checkpoint": {"path": "small/checkpoint"}}
            runner.run(config.parse({**given, "source": {**given["source"], "limit": 100}}))
            digest = digest_of(given)
            (small / "ballast").write_bytes(b"\0" * (shutil.disk_usage(small).free - 4096))
            done = penstock("run", configured(given))
            assert done.returncode == 4
            assert done.stderr.splitlines()[-1].startswith("penstock: error: cannot write small/")
            assert "No space left on device" in done.stderr
            assert digest_of(given) == digest
            checked = penstock("run", "clicks.yaml", "--dry-run")
            assert checked.returncode in (0, 4), "a probe of one page may still fit"
            (small / "ballast").unlink()
            assert penstock("run", "clicks.yaml").stdout.startswith("done at event 3,000 (2,900 learned")
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_a_directory_that_cannot_be_written(self, given):
        Path("state").write_text("a file where a directory should be")
        done = penstock("run", configured(given))
        assert done.returncode == 4
        assert done.stderr.splitlines() == [
            "penstock: error: cannot write beside the checkpoint: state/checkpoint.lock: File exists"
        ]

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            ("cut", "state/checkpoint"),
            ("bit", "state/checkpoint"),
            ("newer", "written by Penstock .*; upgrade it"),
            ("configuration", "belongs to another configuration"),
        ],
    )
    def test_a_checkpoint_that_cannot_be_gone_on_from(self, given, damage, says):
        runner.run(config.parse(given))
        path = Path("state/checkpoint")
        data = bytearray(path.read_bytes())
        if damage == "cut":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "bit":
            data[-100] ^= 1
            path.write_bytes(data)
        elif damage == "newer":
            state, manifest = read(path)
            del manifest["sha256"]
            write(path, state, {**manifest, "format": 99})
        else:
            given["tick"] = 128
        before = {file: file.read_bytes() for file in Path("state").rglob("*") if file.is_file()}
        done = penstock("run", configured(given))
        assert done.returncode == 4
        (line,) = done.stderr.splitlines()
        assert line.startswith("penstock: error: state/checkpoint")
        assert re.search(says, line)
        assert {file: file.read_bytes() for file in Path("state").rglob("*") if file.is_file()} == before

    def test_a_taken_port(self, given):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            done = penstock("run", configured(given, monitor={"port": taken.getsockname()[1]}))
        assert done.returncode == 4
        assert "cannot listen on" in done.stderr
        assert not Path("state/checkpoint").exists()

    def test_no_broker_at_the_start(self, given):
        kafka = {"kind": "kafka", "bootstrap": "127.0.0.1:1", "topics": "a", "connect_timeout_s": 1}
        began = time.monotonic()
        done = penstock("run", configured(given, source=kafka), "--log", "json")
        assert time.monotonic() - began < 20
        assert done.returncode == 4
        told = json.loads(done.stderr.splitlines()[-1])
        assert (told["event"], told["level"], told["exit_code"]) == ("failed", "error", 4)
        assert told["message"].startswith("no Kafka broker answers at 127.0.0.1:1 within 1 s")


class TestSignals:
    def test_an_idle_run_ends_within_a_second(self, given):
        process = start("run", configured(given), "--follow", "--log", "json")
        until(lambda: Path("state/checkpoint").exists() and "3000" in _events())
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        out, err = process.communicate(timeout=30)
        took = time.monotonic() - asked
        assert process.returncode == 0, err
        assert out.startswith("stopped at event 3,000")
        assert took < 5, "half a second, on an idle machine"
        lines = [json.loads(line) for line in err.splitlines()]
        assert {"time", "level", "event", "pipeline"} <= set.intersection(*(set(line) for line in lines))
        assert {line["pipeline"] for line in lines} == {"clicks"}
        happened = [line["event"] for line in lines]
        assert happened[0] == "started"
        assert {"promoted", "checkpoint", "state"} <= set(happened)
        (promoted, *_) = [line for line in lines if line["event"] == "promoted"]
        assert (promoted["version"], promoted["learner"], promoted["how"]) == (1, "sgd", "initial")

    def test_a_run_without_a_broker_ends_too(self, given):
        kafka = {"kind": "kafka", "bootstrap": "127.0.0.1:1", "topics": "a"}
        process = start("run", configured(given, source=kafka, monitor={"port": 0}))
        line = process.stderr.readline()
        address = line.split()[1]
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
            assert json.load(answer)["state"] == "starting"
        until(lambda: Path("state").exists())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert out.startswith("stopped at event 0")


def _events():
    """How many events the checkpoint holds; read at its own risk."""
    path = Path("state/checkpoint")
    try:
        return str(read(path)[0]["n_events"])
    except Exception:
        return ""


class TestStandby:
    def test_the_second_goes_on_where_the_first_was_killed(self, given):
        whole = config.parse({**given, "checkpoint": {"path": "whole/checkpoint"}, "snapshots": None})
        digest = runner.run(whole).digest
        path = configured(given)
        lines = Path("events.jsonl").read_text().splitlines(keepends=True)
        Path("events.jsonl").write_text("".join(lines[:1500]))
        first = start("run", path, "--follow")
        until(lambda: _events() == "1500")
        second = start("run", path, "--standby", "--log", "json")
        assert json.loads(second.stderr.readline())["event"] == "standby"
        refused = penstock("run", path)
        assert refused.returncode == 4
        assert refused.stderr.startswith("penstock: error: another run is using the checkpoint")
        first.kill()
        first.communicate()
        with Path("events.jsonl").open("a") as file:
            file.write("".join(lines[1500:]))
        out, err = second.communicate(timeout=60)
        assert second.returncode == 0, err
        assert '"event":"resumed"' in err
        assert f"digest {digest}" in out
        assert out.startswith("done at event 3,000 (1,500 learned in this run")

    def test_who_stands_by_can_be_asked_to_stop(self, given):
        with runner.only_writer(config.parse(given)):
            process = start("run", configured(given, monitor={"port": 0}), "--standby")
            address = ""
            while not address:
                line = process.stderr.readline()
                assert line, process.wait()
                address = line.split()[1] if line.startswith("monitor") else ""
            with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
                assert json.load(answer)["state"] == "standby"
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "stopped standing by\n"), err
