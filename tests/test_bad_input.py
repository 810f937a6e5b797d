"""Whatever is fed to it: one line that says what is wrong, or a dead letter, and the rest is learned."""

import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from penstock import SnapshotStore, config, runner
from penstock.cli import main
from penstock.evaluate import evaluate

N_GOOD = 400
COMMANDS = ("evaluate", "run")


def good(n=N_GOOD):
    chance = random.Random(1)
    for _ in range(n):
        a, b = chance.gauss(0, 1), chance.gauss(0, 1)
        yield {"a": a, "b": b, "label": int(a > b)}


def as_json(records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_csv(records):
    return b"a,b,label\n" + b"".join(b"%r,%r,%d\n" % (r["a"], r["b"], r["label"]) for r in records)


def as_vw(records):
    lines = (f"{r['label'] * 2 - 1} | a:{r['a']!r} b:{r['b']!r}\n" for r in records)
    return "".join(lines).encode()


def as_msgpack(records):
    return b"".join(map(msgpack.packb, records))


def as_parquet(records):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    "f.jsonl": as_json,
    "f.csv": as_csv,
    "f.vw": as_vw,
    "f.msgpack": as_msgpack,
    "f.parquet": as_parquet,
}


@pytest.fixture
def penstock(tmp_path, capsys, monkeypatch):
    """Run a command on a configuration; return exit code, stdout, stderr and the dead letters."""
    monkeypatch.chdir(tmp_path)

    def call(command, source, **changes):
        given = {
            "source": {"kind": "file", **({"path": source} if isinstance(source, str) else source)},
            "learners": {"sgd": {"kind": "sgd", "bits": 10}},
            "dead_letters": {"path": "dead.jsonl"},
            **changes,
        }
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
        (tmp_path / "dead.jsonl").unlink(missing_ok=True)
        capsys.readouterr()
        code = main([command, "p.yaml", *(["--json"] if command == "evaluate" else [])])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        letters = []
        if (tmp_path / "dead.jsonl").exists():
            letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
        return code, out, err, letters

    return call


def refused(result, code, *words):
    """Exactly one line says why, with all of these words in it."""
    got, out, err, _ = result
    (line,) = [line for line in err.splitlines() if line.startswith("penstock: ")]
    assert line.startswith("penstock: error: ")
    assert all(word in line for word in words), line
    assert (got, out) == (code, "")
    return line


# --- one record -------------------------------------------------------------------------------------------

BAD_JSON = {
    "missing label": b'{"a": 1}',
    "label of the wrong type": b'{"a": 1, "label": "x"}',
    "label that is a list": b'{"a": 1, "label": [1]}',
    "NaN": b'{"a": NaN, "label": 1}',
    "infinity": b'{"a": 1e999, "label": 1}',
    "negative weight": b'{"features": {"a": 1}, "label": 1, "weight": -1}',
    "infinite weight": b'{"features": {"a": 1}, "label": 1, "weight": 1e999}',
    "10 MB line": b'{"a": "' + b"x" * 10_000_000 + b'", "label": 1}',
    "invalid UTF-8": b'{"a": "\xff", "label": 1}',
    "lone surrogate": b'{"a": "\\ud800", "label": 1}',
    "objects 100,000 deep": b'{"a":' * 100_000,
    "lists 100,000 deep": b"[" * 100_000,
    "integer of 5,000 digits": b'{"a": ' + b"9" * 5000 + b', "label": 1}',
    "no object": b"3",
    "not JSON": b"hello",
    "NUL": b"\0",
}
GOOD_JSON = {
    "a repeated key": b'{"a": 1, "a": 2, "label": 1}',
    "no feature": b'{"label": 1}',
    "a feature called __proto__": b'{"__proto__": {"a": 1}, "label": 0}',
    "a NUL": b'{"a\\u0000b": "\\u0000", "label": 0}',
    "50,000 features": json.dumps({**{f"f{i}": 1.5 for i in range(50_000)}, "label": 1}).encode(),
    "no weight": b'{"features": {"a": 1}, "label": 1, "weight": 0}',
    "a huge weight": b'{"features": {"a": 1}, "label": 1, "weight": 1e300}',
}


@pytest.mark.parametrize("command", COMMANDS)
def test_json(penstock, tmp_path, command):
    lines = as_json(good()).splitlines()
    lines[100:100] = BAD_JSON.values()
    lines[250:250] = GOOD_JSON.values()
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(lines))
    code, out, err, letters = penstock(command, "f.jsonl", dead_letters={"path": "dead.jsonl", "min_bad": 20})
    assert code == 0
    n_events = N_GOOD + len(GOOD_JSON)
    if command == "evaluate":
        result = json.loads(out)
        assert (result["events"], result["rejected"]) == (n_events, len(BAD_JSON))
        assert err.count("    left out ") == 10  # the first few, each with its reason and its position
        assert "expected a label, got None - at `$.label`, f.jsonl:101" in err
        assert letters == []
    else:
        assert (
            f"done at event {n_events} ({n_events} learned in this run, {len(BAD_JSON)} bad records)" in out
        )
        assert [letter["where"] for letter in letters] == [f"f.jsonl:{101 + i}" for i in range(len(BAD_JSON))]
        for letter, data in zip(letters, BAD_JSON.values(), strict=True):
            assert letter["reason"].startswith("expected ")
            assert letter["reason"].endswith(letter["where"])
            assert "\n" not in letter["reason"]
            assert len(letter["reason"]) < 300
            if isinstance(letter["data"], str):
                assert data.startswith(letter["data"].encode())


BAD_CSV = (
    b"nan,1,x",
    b"1,2",
    b"1,2,",
    b"1,2,0,4",
    b'"1,2,0',
    b"\xff,1,0",
    b"y" * 10_000_000 + b",1,0",
    b"1,2,inf",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_csv(penstock, tmp_path, command):
    lines = as_csv(good()).splitlines()
    lines[51:51] = BAD_CSV
    (tmp_path / "f.csv").write_bytes(b"\n".join(lines))
    code, out, err, letters = penstock(command, "f.csv")
    assert code == 0
    if command == "evaluate":
        assert (json.loads(out)["events"], json.loads(out)["rejected"]) == (N_GOOD, len(BAD_CSV))
        assert all(f", f.csv:{52 + i}\n" in err for i in range(len(BAD_CSV)))
    else:
        assert [letter["where"] for letter in letters] == [f"f.csv:{52 + i}" for i in range(len(BAD_CSV))]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_label_in_every_format(penstock, tmp_path, command, name):
    records = [*good(100)]
    records[50:50] = [{"a": 1.0, "b": 1.0, "label": 7}]
    (tmp_path / name).write_bytes(FORMATS[name](records))
    code, out, _, letters = penstock(command, name)
    assert code == 0
    if command == "evaluate":
        assert (json.loads(out)["events"], json.loads(out)["rejected"]) == (100, 1)
    else:
        (letter,) = letters
        assert letter["where"] == f"{name}:{52 if name == 'f.csv' else 51}"


# --- a whole file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FORMATS)
def test_files_that_hold_nothing(penstock, tmp_path, command, name):
    refused(penstock(command, name), 3, f"{name}: cannot be opened: No such file or directory")
    (tmp_path / name).touch()
    refused(penstock(command, name), 3, name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    refused(penstock(command, name), 3, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_header_only(penstock, tmp_path, command):
    (tmp_path / "f.csv").write_bytes(as_csv([]))
    refused(penstock(command, "f.csv"), 3, "f.csv: empty: there is no record in it")


@pytest.mark.parametrize("command", COMMANDS)
def test_label_column_that_is_not_there(penstock, tmp_path, command):
    (tmp_path / "f.csv").write_bytes(as_csv(good()))
    refused(
        penstock(command, {"path": "f.csv", "label": "clas"}), 3, "f.csv:1: no column 'clas' (option label)"
    )
    (tmp_path / "f.jsonl").write_bytes(as_json(good()))
    refused(penstock(command, {"path": "f.jsonl", "label": "clas"}), 3, "400 of 400 records", "`$.clas`")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_truncated_and_damaged_compression(penstock, tmp_path, command, ending):
    whole = as_json(good(20_000))
    packed = gzip.compress(whole) if ending == ".gz" else zstandard.ZstdCompressor().compress(whole)
    name = "f.jsonl" + ending
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    refused(penstock(command, name), 3, f"{name}: truncated: the file ends inside its compressed data")
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 255
    (tmp_path / name).write_bytes(damaged)
    code, *_ = penstock(command, name)
    assert code == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_compression_is_told_by_the_content(penstock, tmp_path, command):
    (tmp_path / "f.jsonl.gz").write_bytes(as_json(good()))
    code, *_ = penstock(command, "f.jsonl.gz")
    assert code == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("read_as", FORMATS)
@pytest.mark.parametrize("written_as", FORMATS)
def test_another_format(penstock, tmp_path, command, written_as, read_as):
    if written_as == read_as:
        return
    (tmp_path / read_as).write_bytes(FORMATS[written_as](good()))
    refused(penstock(command, read_as), 3, read_as)


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_format(penstock, tmp_path, command):
    (tmp_path / "f.doc").write_bytes(as_json(good()))
    refused(penstock(command, "f.doc"), 2, "f.doc: the name does not tell the format", "json, csv, parquet")


# --- labels, weights, classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_classes(penstock, tmp_path, command):
    names = ["__proto__", "a\0b", "x/y", "<script>", "\u202e", "é" * 1000, "constructor"]
    records = [{"a": i % 7, "label": names[i % 7]} for i in range(700)]
    (tmp_path / "f.jsonl").write_bytes(as_json(records))
    code, *_ = penstock(
        command,
        "f.jsonl",
        task="multiclass",
        shadow={"refresh_every": 256},
        snapshots={"path": "snapshots"},
        checkpoint={"path": "checkpoint"},
    )
    assert code == 0
    if command == "run":
        assert SnapshotStore("snapshots").manifest("serving")["classes"] == names


@pytest.mark.parametrize("command", COMMANDS)
def test_too_many_classes(penstock, tmp_path, command):
    (tmp_path / "f.jsonl").write_bytes(as_json({"a": 1, "label": f"c{i}"} for i in range(1001)))
    result = penstock(command, "f.jsonl", task="multiclass")
    refused(result, 3, "more than 1000 different labels", "'c1000'")


WATCHED = {
    "drift": [{"kind": "adwin", "react": "warm_restart"}],
    "replay": {"kind": "reservoir", "size": 50},
    "shadow": {"refresh_every": 256},
    "tick": 64,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("task", "labels", "weight"),
    [
        ("binary", [1], 1),
        ("binary", [0, 1], 0),
        ("binary", [0, 1], 1e300),
        ("multiclass", ["one"], 1),
        ("regression", [7.5], 1),
        ("regression", [1e17, -1e17, 3], 1),
        ("regression", [1e100, -1e100, 0], 1),
    ],
)
def test_streams_at_the_edge(penstock, tmp_path, command, task, labels, weight):
    records = [
        {"features": {"a": i % 5}, "label": labels[i % len(labels)], "weight": weight} for i in range(700)
    ]
    (tmp_path / "f.jsonl").write_bytes(as_json(records))
    code, out, _, _ = penstock(command, "f.jsonl", task=task, checkpoint={"path": "ck"}, **WATCHED)
    assert code == 0
    if command == "evaluate":
        # Strict JSON: no NaN or infinity may be in it.
        assert json.loads(out, parse_constant=pytest.fail)["events"] == 700


@pytest.mark.parametrize("command", COMMANDS)
def test_label_beyond_what_can_be_learned(penstock, tmp_path, command):
    (tmp_path / "f.jsonl").write_bytes(as_json([{"a": 1, "label": 2}, {"a": 1, "label": 1e308}]))
    code, out, err, _ = penstock(command, "f.jsonl", task="regression")
    assert code == 0
    if command == "evaluate":
        assert "magnitude <= 1e+100, got 1e+308 - at `$.label`, f.jsonl:2" in err
        assert json.loads(out)["events"] == 1


# --- too many of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bad", [10, 11])
def test_the_verdict_on_bad_records_does_not_depend_on_batches(tmp_path, n_bad):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"x\n" * n_bad + as_json(good(3000)))
    pipeline = config.parse({"source": {"kind": "file", "path": str(path)}})
    verdicts = set()
    for batch in (1, 7, 256, 10_000):
        try:
            verdicts.add(evaluate(pipeline, batch=batch).rejected)
        except Exception as error:
            verdicts.add(type(error).__name__)
    assert verdicts == {10 if n_bad == 10 else "DataError"}


@pytest.mark.parametrize("batch", [1, 7, 256, 10_000])
def test_bad_records_behind_the_limit_do_not_count(tmp_path, batch):
    path = tmp_path / "f.jsonl"
    path.write_bytes(as_json(good(50)) + b"x\n" + as_json(good(50)) + b"x\n" * 5 + as_json(good(100)))
    result = evaluate(config.parse({"source": {"kind": "file", "path": str(path)}}), limit=100, batch=batch)
    assert (result.events, result.rejected) == (100, 1)


# --- dead letters -----------------------------------------------------------------------------------------


def letters_pipeline(tmp_path, **changes):
    return config.parse(
        {
            "source": {"kind": "file", "path": str(tmp_path / "f.jsonl")},
            "checkpoint": {"path": str(tmp_path / "ck")},
            "dead_letters": {"path": str(tmp_path / "dead"), **changes},
        }
    )


def test_letters_outlive_a_run_that_they_ended(tmp_path):
    (tmp_path / "f.jsonl").write_bytes(b"x\n" * 20 + as_json(good()))
    with pytest.raises(Exception, match="20 of 20 records"):
        runner.run(letters_pipeline(tmp_path))
    (tmp_path / "f.jsonl").write_bytes(b"x\n" * 20 + as_json(good()) + b"y\n")
    outcome = runner.run(letters_pipeline(tmp_path, min_bad=30))
    assert (outcome.events, outcome.rejected) == (N_GOOD, 21)
    assert len((tmp_path / "dead").read_bytes().splitlines()) == 21


def test_an_evaluation_leaves_the_letters_of_the_daemon_alone(tmp_path):
    (tmp_path / "f.jsonl").write_bytes(b"x\n" * 3 + as_json(good()))
    runner.run(letters_pipeline(tmp_path))
    before = (tmp_path / "dead").read_bytes()
    assert evaluate(letters_pipeline(tmp_path)).rejected == 3
    assert (tmp_path / "dead").read_bytes() == before


def test_letters_that_were_moved_away_leave_no_hole(tmp_path):
    (tmp_path / "f.jsonl").write_bytes(b"x\n" * 3 + as_json(good()))
    runner.run(letters_pipeline(tmp_path))
    (tmp_path / "dead").unlink()
    with (tmp_path / "f.jsonl").open("ab") as file:
        file.write(b"y\n")
    runner.run(letters_pipeline(tmp_path))
    (letter,) = map(json.loads, (tmp_path / "dead").read_text().splitlines())
    assert letter["data"] == "y"


def test_a_file_whose_name_is_not_utf8(penstock, tmp_path):
    name = os.fsdecode(b"f\xff.jsonl")
    (tmp_path / name).write_bytes(b"x\n" + as_json(good()))
    runner.run(config.parse({"source": {"kind": "file", "path": name}, "dead_letters": {"path": "dead"}}))
    (letter,) = map(json.loads, (tmp_path / "dead").read_text().splitlines())
    assert letter["where"] == f"{name}:1"


# --- configurations ---------------------------------------------------------------------------------------

WRONG = {
    "- a": "expected a mapping of keys, got list",
    "a: [": "is not YAML",
    "[" * 20_000: "is nested too deep",
    "{source: {kind: memory, rows: []}, tik: 1}": "`tik`: unknown key (did you mean `tick`?)",
    "{source: {kind: memory, rows: []}, tick: many}": "`tick`: input should be a valid integer",
    "{source: {kind: memory, rows: []}, tick: 0}": "`tick`: input should be greater than or equal to 1",
    "{source: {kind: memory, rows: []}, learners: {}}": "`learners`: dictionary should have at least 1 item",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: sgd, bits: ten}}}": "`learners.a.bits`",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: sgd, bits: 1e3}}}": "`learners.a.bits`",
    "{source: {kind: memory, rows: []}, learners: {a: 3}}": "`learners.a`: expected a mapping with a `kind`",
    "{source: {kind: memory, rows: []}, learners: {a/b: {kind: sgd}}}": "should match pattern",
    '{source: {kind: memory, rows: []}, learners: {"a\\0": {kind: sgd}}}': "should match pattern",
    "{source: {kind: memory, rows: []}, learners: {? [1] : {kind: sgd}}}": "is not YAML",
    "{source: {kind: memory, rows: []}, learners: {majority: {kind: sgd}}}": "the name of a baseline",
    "{source: {kind: memory, rows: []}, name: ../x}": "`name`: string should match pattern",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: ':X'}}}": "cannot import ''",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: '.a:X'}}}": "cannot import '.a'",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: 'os:getcwd'}}}": "has no class 'getcwd'",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: 'os:path'}}}": "has no class 'path'",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: 'broken:X'}}}": "SyntaxError",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: 'collections:Counter'}}}": "`learners.a`: ",
    "{source: {kind: file, path: a.jsonl}, dead_letters: {path: ./a.jsonl}}": "are both",
    "{source: {kind: file, path: a.jsonl}, checkpoint: {path: c}, dead_letters: {path: c}}": "are both",
    "{source: {kind: file, path: a.vw}, snapshots: {path: c}, shadow: {}, checkpoint: {path: c}}": "are both",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: vw, args: -f x}}}": "-f (--final_regressor)",
    "{source: {kind: memory, rows: []}, learners: {a: {kind: vw, args: --foo}}}": "--foo",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", WRONG, ids=list(WRONG.values()))
def test_configuration(tmp_path, capsys, monkeypatch, command, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text("x = (")
    (tmp_path / "p.yaml").write_text(text)
    assert main([command, "p.yaml"]) == 2
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    assert err.count("penstock: ") == 1
    assert WRONG[text] in err
    assert len(err) < 2000
    assert {*os.listdir(tmp_path)} - {"__pycache__"} == {"broken.py", "p.yaml"}


def test_values_of_a_component_are_taken_as_its_annotations_have_them():
    learners = {"a": {"kind": "sgd", "bits": "10", "l2": "1e-6"}}
    pipeline = config.parse({"source": {"kind": "memory", "rows": []}, "learners": learners})
    assert pipeline.learners["a"].parameters == {"bits": 10, "l2": 1e-6}


def test_floats_without_a_point_are_floats(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "{source: {kind: memory, rows: []}, learners: {a: {kind: sgd, l2: 1e-6}}}"
    )
    assert config.load(tmp_path / "p.yaml").learners["a"].parameters == {"l2": 1e-6}


# --- learners ---------------------------------------------------------------------------------------------

MODULE = """
import numpy as np

class Steady:
    def __init__(self, task, *, seed=0): pass
    def predict(self, batch): return np.full(len(batch), 0.5)
    def predict_one(self, row): return 0.5
    def learn(self, batch): pass
    def progress(self, batch): return self.predict(batch)
    def freeze(self): return self
    def state(self): return {}
    def restore(self, state): pass
    @staticmethod
    def load(state): return Steady(None)

class Infirm(Steady):
    n = 0
    def progress(self, batch):
        p = self.predict(batch)
        if self.n <= 300 < self.n + len(batch): p[300 - self.n] = np.nan
        self.n += len(batch)
        return p

class Raising(Steady):
    def progress(self, batch): raise KeyError("boom")

class Short(Steady):
    def progress(self, batch): return np.zeros(1)

class Forgetful(Steady):
    def learn(self, batch): raise ZeroDivisionError("again")

class Frozen(Steady):
    def freeze(self): return Stuck()

class Stuck(Steady):
    def __init__(self): pass
    def predict(self, batch): raise ValueError("stuck")
"""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Infirm", ["learner `bad` failed on event", "predicted nan for event 301"]),
        ("Raising", ["learner `bad` failed on event", "KeyError: 'boom'"]),
        ("Short", ["learner `bad` failed on event", "got ((1,), "]),
        ("Forgetful", ["learner `bad` failed on replayed events, after event 64: ZeroDivisionError: again"]),
        ("Frozen", ["a frozen model failed on event", "ValueError: stuck"]),
    ],
)
def test_a_learner_that_fails_is_named(penstock, tmp_path, monkeypatch, command, kind, words):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "infirm", raising=False)
    (tmp_path / "infirm.py").write_text(MODULE)
    (tmp_path / "f.jsonl").write_bytes(as_json(good()))
    learners = {"bad": {"kind": f"infirm:{kind}"}, "sgd": {"kind": "sgd", "bits": 8}}
    refused(penstock(command, "f.jsonl", **{**WATCHED, "drift": []}, learners=learners), 1, *words)
    monkeypatch.delitem(sys.modules, "infirm", raising=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_river_model_that_cannot_take_text(penstock, tmp_path, command):
    (tmp_path / "f.jsonl").write_bytes(as_json(good()) + b'{"a": "text", "label": 1}\n')
    model = ["preprocessing.StandardScaler", "linear_model.LogisticRegression"]
    result = penstock(command, "f.jsonl", learners={"scaled": {"kind": "river", "model": model}})
    refused(result, 1, "learner `scaled` failed on event", "TypeError", "text")


# --- stores -----------------------------------------------------------------------------------------------


@pytest.fixture
def ran(penstock, tmp_path):
    """Run a small pipeline; return what to run it again with."""
    (tmp_path / "f.jsonl").write_bytes(as_json(good(1000)))
    changes = {
        "shadow": {"refresh_every": 256},
        "snapshots": {"path": "snapshots"},
        "checkpoint": {"path": "checkpoint"},
    }
    assert penstock("run", "f.jsonl", **changes)[0] == 0
    return lambda **others: penstock("run", "f.jsonl", **{**changes, **others})


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_checkpoints_that_cannot_be_used(ran, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    whole = checkpoint.read_bytes()
    flip(checkpoint)
    refused(ran(), 4, "checkpoint is damaged", "SHA-256")
    checkpoint.write_bytes(whole[: len(whole) // 2])
    refused(ran(), 4, "checkpoint is damaged")
    checkpoint.write_bytes(b"")
    refused(ran(), 4, "checkpoint is damaged")
    checkpoint.write_bytes(whole)
    refused(ran(tick=100), 4, "belongs to another configuration")
    assert ran()[0] == 0


def test_a_flipped_bit_in_a_snapshot(ran, tmp_path, capsys):
    store = SnapshotStore("snapshots")
    version = store.alias("serving").version
    flip(store.file(version))
    capsys.readouterr()
    assert main(["snapshots", "verify", "snapshots"]) == 4
    out, err = capsys.readouterr()
    assert err == ""
    (line,) = out.splitlines()
    assert line.startswith(f"snapshots/{version:08d}.safetensors is damaged: expected SHA-256 ")


SMALL = """
import sys
from penstock.cli import main
sys.exit(main(sys.argv[1:]))
"""


NOBODY = """
import os, sys
from penstock.cli import main
main(["run", sys.argv[2], "-q"])  # imports what nobody may not be allowed to read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(["run", sys.argv[1]]))
"""


def small(tmp_path):
    (tmp_path / "f.jsonl").write_bytes(as_json(good(1000)))
    given = {
        "source": {"kind": "file", "path": str(tmp_path / "f.jsonl")},
        "learners": {"sgd": {"kind": "sgd", "bits": 8}},
        "shadow": {"refresh_every": 256},
        "snapshots": {"path": str(tmp_path / "out" / "snapshots")},
        "checkpoint": {"path": str(tmp_path / "out" / "checkpoint")},
        "dead_letters": {"path": str(tmp_path / "out" / "dead"), "min_bad": 100},
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(given))


def run_limited(tmp_path, n_bytes):
    """`penstock run` where no file may grow beyond `n_bytes`."""
    return subprocess.run(
        [sys.executable, "-c", SMALL, "run", str(tmp_path / "p.yaml")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_full_disk(tmp_path):
    small(tmp_path)
    limited = run_limited(tmp_path, 100_000)
    assert limited.returncode == 4
    line = limited.stderr.splitlines()[-1]
    assert line.startswith("penstock: error: cannot write ")
    assert line.endswith("File too large")
    outcome = runner.run(config.load(tmp_path / "p.yaml"))
    assert (outcome.events, outcome.resumed_at, outcome.serving) == (1000, 0, 3)


def test_full_disk_for_dead_letters(tmp_path):
    small(tmp_path)
    (tmp_path / "f.jsonl").write_bytes((b"x" * 50_000 + b"\n") * 30 + as_json(good(1000)))
    limited = run_limited(tmp_path, 1_000_000)
    assert limited.returncode == 4
    line = limited.stderr.splitlines()[-1]
    assert line == f"penstock: error: cannot write the dead letters to {tmp_path}/out/dead: File too large"
    outcome = runner.run(config.load(tmp_path / "p.yaml"))
    assert (outcome.events, outcome.rejected) == (1000, 30)
    assert len((tmp_path / "out" / "dead").read_bytes().splitlines()) == 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_directories_that_are_not_ours(tmp_path):
    small(tmp_path)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory.is_relative_to(tempfile.gettempdir()):
            directory.chmod(0o755)
    (tmp_path / "out").mkdir(mode=0o755)
    text = (tmp_path / "p.yaml").read_text()
    (tmp_path / "ours.yaml").write_text(text.replace(str(tmp_path / "out"), str(tmp_path / "ours")))
    stopped = subprocess.run(
        [sys.executable, "-c", NOBODY, str(tmp_path / "p.yaml"), str(tmp_path / "ours.yaml")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert stopped.returncode == 4
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("penstock: error: cannot write ")
    assert line.endswith("Permission denied")
