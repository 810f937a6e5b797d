"""The command line: what scripts rely on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from penstock import SnapshotStore, config
from penstock.cli import main

ROOT = Path(__file__).parents[1]
PENSTOCK = (sys.executable, "-m", "penstock")


def write(path, n=1200):
    """A stream whose label is whether `a` is the larger number."""
    lines = []
    for i in range(n):
        a, b = (i * 37) % 101 / 50 - 1, (i * 61) % 97 / 48 - 1
        lines.append(json.dumps({"a": a, "b": b, "label": int(a > b)}))
    path.write_text("\n".join(lines) + "\n")


GIVEN = {
    "name": "small",
    "source": {"kind": "file", "path": "events.jsonl"},
    "learners": {"sgd": {"kind": "sgd", "bits": 8}, "coin": {"kind": "sgd", "bits": 8, "update": "coin"}},
    "drift": [{"kind": "adwin", "react": "warm_restart"}],
    "replay": {"kind": "reservoir", "size": 100},
    "shadow": {"refresh_every": 256},
    "snapshots": {"path": "snapshots"},
    "checkpoint": {"path": "checkpoint"},
}


@pytest.fixture
def penstock(tmp_path, capsys, monkeypatch):
    """Run the command line where a small pipeline lies; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "events.jsonl")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(GIVEN, sort_keys=False))

    def call(*words):
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as exit_:
            code = exit_.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def result(penstock, *words):
    code, out, _ = penstock("evaluate", "small.yaml", "--json", "-q", *words)
    assert code == 0
    found = json.loads(out)
    del found["seconds"]
    return found


# --- evaluate ---------------------------------------------------------------------------------------------


def test_evaluate_tables_go_to_stderr(penstock):
    code, out, err = penstock("evaluate", "small.yaml")
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "logloss, average since start and since the last line"
    counts = [
        int(m[1].replace(",", "")) for m in map(re.compile(r" {2,}([0-9,]+) +[-0-9]").match, lines) if m
    ]
    assert counts == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1200]
    assert re.fullmatch(r"1,200 events in [0-9.]+ s; digest [0-9a-f]{16}", lines[-1])
    assert any(line.startswith("majority ") for line in lines)


def test_evaluate_json_keys(penstock):
    code, out, _ = penstock("evaluate", "small.yaml", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found) == [
        "events",
        "rejected",
        "seconds",
        "digest",
        "learners",
        "baselines",
        "drifts",
        "promotions",
        "rollbacks",
        "rejections",
    ]
    assert found["events"] == 1200
    assert re.fullmatch("[0-9a-f]{64}", found["digest"])
    assert list(found["learners"]) == ["sgd", "coin"]
    assert list(found["baselines"]) == ["majority", "no_change"]
    assert {"accuracy", "logloss", "roc_auc", "window_accuracy", "fading_accuracy"} <= set(
        found["learners"]["sgd"]
    )
    assert {"event", "learner", "text", "version", "how"} <= set(found["promotions"][0])


def test_quiet_prints_the_result_and_nothing_else(penstock):
    code, out, err = penstock("evaluate", "small.yaml", "-q")
    assert (code, out) == (0, "")
    assert [line.split()[0] for line in err.splitlines() if line] == [
        "logloss",
        "sgd",
        "coin",
        "-" * len(err.splitlines()[4]),
        "majority",
        "no_change",
    ]
    code, out, err = penstock("evaluate", "small.yaml", "-q", "--json")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("batch", ["1", "7", "10000"])
def test_batch_changes_nothing(penstock, batch):
    assert result(penstock, "--batch", batch) == result(penstock)


def test_limit_seed_and_learner(penstock):
    assert result(penstock, "--limit", "300")["events"] == 300
    assert result(penstock, "--limit", "300", "--batch", "7") == result(penstock, "--limit", "300")
    assert list(result(penstock, "--learner", "coin")["learners"]) == ["coin"]
    assert list(result(penstock, "--learner", "coin", "--learner", "sgd")["learners"]) == ["sgd", "coin"]
    assert result(penstock, "--seed", "0") == result(penstock)
    assert result(penstock, "--seed", "1")["digest"] != result(penstock)["digest"]


@pytest.mark.parametrize(
    ("progress", "counts"),
    [("500", [500, 1000, 1200]), ("10.0", [1, 10, 100, 1000, 1200]), ("1.5", [1, 2, 3, 4, 6, 9, 13, 19])],
)
def test_progress(penstock, progress, counts):
    _, _, err = penstock("evaluate", "small.yaml", "--progress", progress)
    found = re.findall(r"^ {2,}([0-9,]+) +[-0-9]", err, re.MULTILINE)
    assert [int(count.replace(",", "")) for count in found][: len(counts)] == counts


def test_data_takes_the_place_of_the_source(penstock, tmp_path):
    write(tmp_path / "other file é.jsonl", 300)
    assert result(penstock, "--data", "other file é.jsonl")["events"] == 300
    given = {"source": {"kind": "river", "dataset": "Phishing", "repeat": 8}, "task": "binary"}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(given))
    assert result(penstock, "--data", "other file é.jsonl")["events"] == 300


def test_report(penstock, tmp_path):
    code, _, err = penstock("evaluate", "small.yaml", "--report", "page.html")
    assert code == 0
    assert "report: page.html" in err
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    code, _, err = penstock("evaluate", "small.yaml", "--report", "no/page.html")
    assert (code, err) == (2, "penstock: error: --report no/page.html: there is no directory no\n")


def test_a_class_beside_the_configuration_is_found(penstock, tmp_path):
    (tmp_path / "mine_beside.py").write_text("from penstock.learners.sgd import SGD as Mine\n")
    (tmp_path / "small.yaml").write_text(
        yaml.safe_dump({"source": GIVEN["source"], "learners": {"mine": {"kind": "mine_beside:Mine"}}})
    )
    # As the installed script is: where it lies, not where one is, comes first on Python's path.
    script = tmp_path / "bin" / "penstock"
    script.parent.mkdir()
    script.write_text("import sys; from penstock.cli import main; sys.exit(main())")
    found = subprocess.run(
        [sys.executable, script, "evaluate", "small.yaml", "--json", "-q"],
        capture_output=True,
        check=True,
    )
    assert list(json.loads(found.stdout)["learners"]) == ["mine"]


# --- usage and errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["evaluate"], "the following arguments are required: CONFIG"),
        (["evaluate", "small.yaml", "--batch", "0"], "argument --batch: expected an integer >= 1, got 0"),
        (["evaluate", "small.yaml", "--limit", "x"], "argument --limit: expected an integer >= 1, got x"),
        (["evaluate", "small.yaml", "-P", "1.0"], "expected an integer >= 1 or a factor > 1.0, got 1.0"),
        (["evaluate", "small.yaml", "-P", "nan"], "expected an integer >= 1 or a factor > 1.0, got nan"),
        (["snapshots", "burn", "x"], "argument action: invalid choice: 'burn'"),
    ],
)
def test_usage(penstock, words, message):
    code, out, err = penstock(*words)
    assert (code, out) == (2, "")
    assert err.startswith("usage: penstock")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["evaluate", "no.yaml"], 2, "cannot read the configuration no.yaml: No such file or directory"),
        (["evaluate", "."], 2, "cannot read the configuration .: Is a directory"),
        (["evaluate", "small.yaml", "--learner", "x"], 2, "--learner x: the learners are sgd, coin"),
        (["evaluate", "small.yaml", "--seed", "-1"], 2, "small.yaml: `seed`: input should be greater"),
        (["evaluate", "small.yaml", "--data", "no.csv"], 3, "no.csv: cannot be opened: No such file"),
        (["run", "small.yaml", "--data", "no.csv"], 3, "no.csv: cannot be opened: No such file"),
        (["snapshots", "ls", "no"], 4, "no snapshots at no: No such file or directory"),
        (["snapshots", "ls", ".", "abc"], 2, "`snapshots ls` takes a version number, got 'abc'"),
        (["snapshots", "promote", "."], 2, "`snapshots promote` needs the version that is to serve"),
        (["snapshots", "show", ".", "²"], 4, "expected an alias of a-z"),
        (["snapshots", "show", ".", "9" * 5000], 4, "expected an alias of a-z"),
        (["snapshots", "show", ".", "../x"], 4, "expected an alias of a-z"),
        (["snapshots", "show", "."], 4, ". has no alias 'serving': there are none"),
    ],
)
def test_an_error_is_one_line(penstock, words, code, message):
    found, out, err = penstock(*words)
    (line,) = [line for line in err.splitlines() if not line.startswith(("logloss,", " ")) and line]
    assert (found, out) == (code, "")
    assert line.startswith(f"penstock: error: {message}")


def test_debug_shows_where(penstock):
    with pytest.raises(config.ConfigError):
        penstock("evaluate", "no.yaml", "--debug")


def test_version(penstock):
    code, out, _ = penstock("--version")
    assert (code, out) == (0, "penstock 0.1.0\n")


# --- run and snapshots ------------------------------------------------------------------------------------


def test_run_resumes(penstock, tmp_path):
    code, out, _ = penstock("run", "small.yaml")
    assert code == 0
    assert re.fullmatch(
        r"done at event 1,200 \(1,200 learned in this run, 0 bad records\); version \d+ serves; "
        r"digest [0-9a-f]{64}\n",
        out,
    )
    digest = out.split()[-1]
    assert result(penstock)["digest"] == digest
    code, again, _ = penstock("run", "small.yaml")
    assert again.startswith("done at event 1,200 (0 learned in this run")
    assert again.endswith(f"{digest}\n")


def test_run_gives_the_signals_back(penstock):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    penstock("run", "small.yaml")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_snapshots(penstock):
    penstock("run", "small.yaml")
    store = SnapshotStore("snapshots")
    versions, serving = store.versions(), store.alias("serving").version
    code, out, _ = penstock("snapshots", "ls", "snapshots")
    assert code == 0
    assert len(out.splitlines()) == 1 + len(versions)
    assert [line.split()[0] for line in out.splitlines() if "serving" in line] == [str(serving)]
    code, out, _ = penstock("snapshots", "ls", "snapshots", "--json")
    listed = json.loads(out)
    assert listed["aliases"] == {name: alias.version for name, alias in store.aliases().items()}
    assert [manifest["version"] for manifest in listed["snapshots"]] == versions

    code, out, _ = penstock("snapshots", "show", "snapshots", "--json")
    assert (code, json.loads(out)["version"]) == (0, serving)
    code, out, _ = penstock("snapshots", "show", "snapshots", "1")
    assert "version: 1\n" in out
    assert "learner: sgd\n" in out

    code, out, _ = penstock("snapshots", "rollback", "snapshots")
    parent = store.manifest(serving)["parent"]
    held = "and is held until `penstock snapshots release snapshots`"
    assert (code, out) == (0, f"rolled back: version {parent} serves, {held}\n")
    assert store.alias("serving").version == parent
    code, out, _ = penstock("snapshots", "promote", "snapshots", "1", "--json")
    assert (code, json.loads(out)) == (0, {"serving": 1})
    code, out, err = penstock("snapshots", "promote", "snapshots", "99")
    assert code == 4
    assert err.startswith("penstock: error: snapshots has no version 99: there are 1 to ")

    code, out, _ = penstock("snapshots", "verify", "snapshots")
    assert (code, out) == (0, f"{len(versions)} snapshots verified\n")
    store.file(1).write_bytes(store.file(1).read_bytes()[:-1])
    code, out, _ = penstock("snapshots", "verify", "snapshots", "1", "--json")
    assert code == 4
    (problem,) = json.loads(out)["problems"]
    assert problem.startswith("snapshots/00000001.safetensors is damaged: ")


def test_what_a_snapshot_says_does_not_depend_on_batches(penstock, tmp_path):
    """Neither its metrics nor its classes: a run that dies and resumes puts the same snapshots again."""
    manifests = []
    for batch in ("50", "100000"):
        penstock("run", "small.yaml", "--batch", batch)
        store = SnapshotStore("snapshots")
        manifests.append([store.manifest(version) for version in store.versions()])
        (tmp_path / "snapshots").rename(tmp_path / f"snapshots {batch}")
        for file in tmp_path.glob("checkpoint*"):
            file.unlink()
    assert manifests[0] == manifests[1]


# --- schema -----------------------------------------------------------------------------------------------


def fits(schema, value, root):
    """Whether `value` fits a JSON Schema, of the keywords that ours uses."""
    if "$ref" in schema:
        return fits(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root)
    if "anyOf" in schema and not any(fits(one, value, root) for one in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(one, value, root) for one in schema["oneOf"]) != 1:
        return False
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kind = schema.get("type")
    if kind in types and not isinstance(value, types[kind]):
        return False
    if kind in ("integer", "number") and (isinstance(value, bool) or not isinstance(value, int | float)):
        return False
    if kind == "integer" and not isinstance(value, int):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        if any(name not in value for name in schema.get("required", [])):
            return False
        patterns = schema.get("patternProperties", {})
        for name, inner in value.items():
            named = [rule for pattern, rule in patterns.items() if re.search(pattern, name)]
            rule = properties.get(name, (named or [others])[0])
            if rule is False or (isinstance(rule, dict) and not fits(rule, inner, root)):
                return False
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return all(fits(schema["items"], inner, root) for inner in value)
    return True


def test_schema_accepts_what_is_shipped_and_refuses_what_is_wrong(penstock):
    code, out, _ = penstock("schema")
    assert code == 0
    schema = json.loads(out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    refs = set(re.findall(r'"\$ref": "([^"]+)"', out))
    assert {ref.removeprefix("#/$defs/") for ref in refs} <= set(schema["$defs"])
    shipped = sorted((ROOT / "configs").glob("**/*.yaml"))
    tasks = set()
    for path in shipped:
        given = yaml.load(path.read_text(), config._Loader)
        tasks.add(given.get("task") == "bandit")
        assert fits(schema, given, schema), path
        for wrong in ({"tik": 1}, {"task": "guess"}, {"shadow": {"refresh": 5}}):
            assert not fits(schema, {**given, **wrong}, schema), (path, wrong)
        of, kind = ("policies", "squarecb") if "policies" in given else ("learners", "sgd")
        for wrong in ({"kind": "sgdd"}, {"kind": kind, "floor": "x", "bits": "x"}, {"kind": kind, "bit": 3}):
            assert not fits(schema, {**given, of: {"a": wrong}}, schema), (path, wrong)
    assert tasks == {False, True}


def test_schema_knows_the_sources_of_decisions(penstock):
    schema = json.loads(penstock("schema")[1])
    given = {"task": "bandit", "policies": {"a": {"kind": "linucb"}}}
    feedback = {"kind": "feedback", "path": "log", "follow": True}
    for source in (feedback, {"kind": "log", "path": "log", "format": "dsjson"}):
        assert fits(schema, {**given, "source": source}, schema)
        assert not fits(schema, {**given, "source": {**source, "paths": "x"}}, schema)
        assert not fits(schema, {**given, "task": "binary", "source": source}, schema)
    assert not fits(schema, {**given, "source": {"kind": "log", "path": "log", "format": "pdf"}}, schema)


def test_schema_means_the_same_to_others(penstock):
    schema = json.loads(penstock("schema")[1])
    for path in sorted((ROOT / "configs").glob("**/*.yaml")):
        jsonschema.validate(yaml.load(path.read_text(), config._Loader), schema)


# --- processes --------------------------------------------------------------------------------------------


def test_broken_pipes_are_no_errors(penstock):
    for command in (
        "evaluate small.yaml --json -q",
        "evaluate small.yaml -P 1 2>&1",
        "run small.yaml",
        "schema",
    ):
        shell = f"set -o pipefail; {' '.join(PENSTOCK)} {command} | head -c 1"
        found = subprocess.run(
            ["bash", "-c", shell], capture_output=True, text=True, timeout=100, check=False
        )
        assert (found.returncode, found.stderr.replace("event ", "")[:9] == "Traceback") == (0, False), (
            command
        )
        assert "Error" not in found.stderr


def endless(directory):
    """A pipeline that waits for more at the end of its file."""
    given = {**GIVEN, "source": {**GIVEN["source"], "follow": True, "poll_s": 0.05}}
    (directory / "small.yaml").write_text(yaml.safe_dump(given, sort_keys=False))


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_in_order(penstock, tmp_path, sign):
    endless(tmp_path)
    process = subprocess.Popen(
        [*PENSTOCK, "run", "small.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: (tmp_path / "snapshots" / "serving.json").exists())
    second = subprocess.run([*PENSTOCK, "run", "small.yaml"], capture_output=True, text=True, check=False)
    assert second.returncode == 4
    assert second.stderr.startswith("penstock: error: another run is using the checkpoint checkpoint")
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("stopped at event 1,200 (1,200 learned in this run")
    assert "Traceback" not in err


def test_a_waiting_run_writes_nothing(penstock, tmp_path):
    endless(tmp_path)
    given = yaml.safe_load((tmp_path / "small.yaml").read_text())
    given["checkpoint"]["every_s"] = 0.05
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    process = subprocess.Popen([*PENSTOCK, "run", "small.yaml"], stderr=subprocess.DEVNULL)
    try:
        until((tmp_path / "checkpoint.previous").exists)
        until(lambda: time.time() - (tmp_path / "checkpoint").stat().st_mtime > 0.6)
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_ctrl_c_ends_an_evaluation_quietly(penstock, tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    command = [*PENSTOCK, "evaluate", "small.yaml", "--data", "pipe.jsonl"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        (tmp_path / "pipe.jsonl").open("w") as pipe,
    ):
        pipe.write('{"a": 1, "label": 1}\n')
        pipe.flush()
        begun = process.stderr.readline()  # before that it is imports that are interrupted
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert begun
    assert process.returncode == 130
    assert "Traceback" not in err
