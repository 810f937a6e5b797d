"""Vowpal Wabbit as a learner against Vowpal Wabbit by itself."""

import csv
import gzip
import math
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vowpalwabbit import pyvw

from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.events import Batch, Task
from penstock.learners.vw import VW
from penstock.learners.vw_text import vw_text
from penstock.learners.vw_workspace import Workspace
from penstock.state import digest

BINARY, MULTICLASS, REGRESSION = Task("binary"), Task("multiclass"), Task("regression")
DATA = Path(__file__).parents[3] / "shared/data"


def small(n=100, seed=0, n_classes=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    labels = np.clip(np.floor(x[:, 0] + n_classes / 2), 0, n_classes - 1)
    return Batch.from_rows([{"a": a, "where": {"b": b}} for a, b in x.tolist()], labels)


def by_itself(arguments, lines):
    """VW's own progressive predictions, and its own average loss."""
    vw = pyvw.Workspace(arg_list=[*arguments.split(), "--quiet"])
    predictions = []
    for line in lines:
        example = vw.parse(line)
        vw.learn(example)
        predictions.append(example.get_prediction())
        vw.finish_example(example)
    average = vw.get_sum_loss() / vw.get_weighted_examples()
    vw.finish()
    return predictions, average


def log_loss(predictions, labels):
    predictions = np.clip(predictions, 1e-15, 1 - 1e-15)
    return -float(np.mean(np.where(labels > 0.5, np.log(predictions), np.log1p(-predictions))))


@pytest.fixture(scope="module")
def elec2():
    path = DATA / "elec2.csv.gz"
    if not path.exists():
        pytest.skip("needs shared/data")
    with gzip.open(path, "rt") as file:
        records = list(csv.DictReader(file))
    labels = np.array([float(record.pop("class") == "UP") for record in records])
    lines = ["| " + " ".join(f"{k}:{v}" for k, v in record.items()) for record in records]
    return Batch.from_rows([{k: float(v) for k, v in r.items()} for r in records], labels), lines


# --- the same as VW ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "expected"), [("", 0.55146), ("-q :: -l 2 --power_t 0.1", 0.29728)])
def test_learns_what_vw_learns_on_elec2(elec2, args, expected):
    batch, lines = elec2
    margins, average = by_itself(
        f"--loss_function logistic {args}",
        (f"{1 if label else -1} {line}" for label, line in zip(batch.labels, lines, strict=True)),
    )
    from_lines = VW(BINARY, args=args).progress(replace(batch, lines=lines))
    loss = log_loss(from_lines, batch.labels)
    assert loss == pytest.approx(average, abs=1e-6)
    assert loss == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(from_lines, 1 / (1 + np.exp(-np.array(margins))), rtol=1e-12, atol=0)
    np.testing.assert_array_equal(VW(BINARY, args=args).progress(batch), from_lines)  # the rows say the same


@pytest.mark.parametrize("args", ["", "-q ui --l2 1e-6", "--ftrl"])
def test_learns_what_vw_learns_on_ratings(args):
    path = DATA / "vw/ml100k_small_train"
    if not path.exists():
        pytest.skip("needs shared/data")
    lines = [line for line in path.read_text().splitlines() if line]
    ratings = [float(line.partition(" ")[0]) for line in lines]
    batch = replace(
        Batch.from_rows([{}] * len(lines), ratings), lines=["|" + line.partition("|")[2] for line in lines]
    )
    expected, average = by_itself(args, lines)
    predictions = VW(REGRESSION, args=args).progress(batch)
    np.testing.assert_array_equal(predictions, expected)
    assert float(np.square(predictions - ratings).mean()) == pytest.approx(average, abs=1e-6)


def test_weights_are_importance():
    batch = small()
    weights = np.random.default_rng(1).choice([0.5, 1.0, 2.5], len(batch))
    expected, _ = by_itself(
        "--loss_function logistic",
        (
            f"{1 if label else -1} {weight} {vw_text(row)}"
            for row, label, weight in zip(batch.rows, batch.labels, weights, strict=True)
        ),
    )
    predictions = VW(BINARY).progress(batch.with_weights(weights))
    np.testing.assert_allclose(predictions, 1 / (1 + np.exp(-np.array(expected))), rtol=1e-12, atol=0)


SQUASH = {
    "--loss_function logistic": lambda p: 1 / (1 + math.exp(-p)),
    "--loss_function logistic --link logistic": lambda p: p,
    "--loss_function logistic --link glf1": lambda p: (1 + p) / 2,
    "--loss_function logistic --binary": lambda p: (1 + p) / 2,
    "--loss_function hinge": lambda p: min(max((1 + p) / 2, 0), 1),
    "--loss_function squared": lambda p: min(max(p, 0), 1),
    "--loss_function squared --link logistic": lambda p: p,
}


@pytest.mark.parametrize("args", SQUASH)
def test_binary_labels_and_predictions(args):
    batch = small(200)
    negative = 0 if "squared" in args else -1
    lines = [
        f"{1 if label else negative} {vw_text(row)}"
        for row, label in zip(batch.rows, batch.labels, strict=True)
    ]
    expected, _ = by_itself(args, lines)
    learner = VW(BINARY, args=args)
    np.testing.assert_allclose(
        learner.progress(batch)[5:], [SQUASH[args](p) for p in expected[5:]], rtol=1e-12, atol=1e-15
    )
    assert ((learner.predict(batch) > 0.5) == (batch.labels > 0.5)).mean() > 0.8


def test_classes_and_probabilities():
    batch = small(300, n_classes=3)
    lines = [f"{int(k) + 1} {vw_text(row)}" for row, k in zip(batch.rows, batch.labels, strict=True)]
    named, _ = by_itself("--oaa 3", lines)
    predictions = VW(MULTICLASS, args="--oaa 3").progress(batch)
    np.testing.assert_array_equal(predictions[20:].argmax(axis=1) + 1, named[20:])
    assert set(np.unique(predictions[20:])) == {0.0, 1.0}
    args = "--oaa 3 --probabilities --loss_function logistic"
    expected, _ = by_itself(args, lines)
    predictions = VW(MULTICLASS, args=args).progress(batch)
    np.testing.assert_allclose(
        predictions[20:], expected[20:], rtol=0, atol=1e-6
    )  # VW's add up to 1 in float32


def test_no_class_is_predicted_before_it_was_seen():
    batch = small(10, n_classes=2).with_labels(np.array([0, 0, 2, 0, 0, 2, 0, 2, 0, 0], dtype=float))
    predictions = VW(MULTICLASS, args="--oaa 3 --probabilities --loss_function logistic").progress(batch)
    assert not predictions[0].any()
    np.testing.assert_array_equal(predictions[1:3], [[1.0, 0.0, 0.0]] * 2)
    assert (predictions[3:, [0, 2]] > 0).all()
    assert not predictions[:, 1].any()


def test_the_score_does_not_know_the_label():
    # VW's own report cuts at the range of labels that already includes the one it is about to learn.
    labels = [1.0, 2.0, 8.0, 30.0, 100.0, 400.0]
    batch = Batch.from_rows([{"x": label} for label in labels], labels)
    learner, honest = VW(REGRESSION), []
    for event in batch.events():
        honest.append(float(learner.predict(event)[0]))
        learner.learn(event)
    np.testing.assert_array_equal(VW(REGRESSION).progress(batch), honest)
    reported, _ = by_itself(
        "", (f"{label} {vw_text(row)}" for row, label in zip(batch.rows, labels, strict=True))
    )
    assert reported != honest


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({}, "|"),
        ({"a": 1, "b": 2.5, "c": -3e-7, "d": 2.0}, "| a:1 b:2.5 c:-3e-07 d:2.0"),
        ({"a": 0, "b": 0.0, "c": None, "d": False}, "|"),
        ({"a": True, "b": "x", "c": ""}, "| a b=x c=%"),
        ({"": 1.0}, "| %:1.0"),
        ({"u": {"x": 1, "s": "t", "on": True, "off": None}, "a": 2}, "| a:2 |u x:1 s=t on"),
        ({"u": {}}, "| |u"),
        ({"u": {"v": {"x": 1, "y": {"z": "w"}}}}, "| |u v.x:1 v.y.z=w"),
        ({"a": [1.5, 0, -2]}, "| a.0:1.5 a.2:-2"),
        ({"a": ["x", "y"], "b": ("x", [1], {"k": 2})}, "| a=x a=y b=x b.1.0:1 b.2.k:2"),
        ({"a": np.array([1.0, 2.0]), "b": np.float32(0.5), "c": np.int64(3)}, "| a.0:1.0 a.1:2.0 b:0.5 c:3"),
        ({"a b": 1, "c:d|e%\t\n\r": "f g"}, "| a%20b:1 c%3Ad%7Ce%25%09%0A%0D=f%20g"),
        ({"|n s": {"é ü": "ß:"}}, "| |%7Cn%20s é%20ü=ß%3A"),
        ({"\ud800": "\x00"}, "| %D800=%00"),
    ],
)
def test_rows_become_text(row, text):
    assert vw_text(row) == text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": math.nan}, "expected a finite number of magnitude <= 1e18, got nan - at `$.a`"),
        ({"u": {"b": -1e19}}, "expected a finite number of magnitude <= 1e18, got -1e+19 - at `$.u.b`"),
        ({"a": [1, math.inf]}, "expected a finite number of magnitude <= 1e18, got inf - at `$.a[1]`"),
        ({"a": 1 + 2j}, "expected a number, a string, a boolean, a list or a mapping, got (1+2j) - at `$.a`"),
        ({3: 1.0}, "expected a string as name, got 3 - at `$`"),
    ],
)
def test_what_cannot_be_a_feature_is_named(row, message):
    with pytest.raises(BadRecord) as raised:
        vw_text(row)
    assert str(raised.value) == message


names = st.text(min_size=0, max_size=6)
values = (
    st.floats(-1e18, 1e18).filter(lambda value: abs(value) > 1e-20)
    | st.integers(-(10**18), 10**18).filter(bool)
    | names
    | st.just(True)
)
rows = st.dictionaries(names, values | st.dictionaries(names, values, max_size=3), max_size=5)


@settings(deadline=None)
@given(rows)
def test_vw_reads_every_feature_and_nothing_else(row):
    vw = pyvw.Workspace(arg_list=["--quiet", "--noconstant", "--strict_parse"])
    example = vw.parse(vw_text(row))
    n_features = sum(len(value) if isinstance(value, dict) else 1 for value in row.values())
    assert example.get_feature_number() == n_features
    vw.finish_example(example)
    vw.finish()


@settings(deadline=None)
@given(st.floats(-1e18, 1e18).filter(lambda value: abs(value) > 1e-20))
def test_numbers_arrive_as_float32(value):
    vw = pyvw.Workspace(arg_list=["--quiet"])
    example = vw.parse(vw_text({"a": value}))
    assert example.num_features_in(" ") == 1  # asking for one that is not there would crash
    assert example.feature_weight(" ", 0) == pytest.approx(value, rel=1e-6)
    vw.finish_example(example)
    vw.finish()


@settings(deadline=None)
@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_different_names_stay_different(pair):
    one, other = (vw_text({name: 1.0}) for name in pair)
    assert one != other


# --- arguments --------------------------------------------------------------------------------------------

OUTSIDE = "reads, writes, prints or listens outside of the learner"


@pytest.mark.parametrize(
    ("task", "args", "message"),
    [
        (BINARY, "-f model.vw", f"vw: -f (--final_regressor) {OUTSIDE}"),
        (BINARY, "-fmodel.vw", f"vw: -f (--final_regressor) {OUTSIDE}"),
        (BINARY, "--final_regressor=m", f"vw: --final_regressor {OUTSIDE}"),
        (BINARY, "-q ab -p /dev/stdout", f"vw: -p (--predictions) {OUTSIDE}"),
        (BINARY, "--daemon", f"vw: --daemon {OUTSIDE}"),
        (BINARY, "--help", f"vw: --help {OUTSIDE}"),
        (BINARY, "-t", "vw: -t (--testonly) is for learning in several passes, or for not learning"),
        (
            BINARY,
            "--bootstrap 4",
            "vw: --bootstrap draws random numbers when it predicts, so that looking would change the learner",
        ),
        (
            BINARY,
            "--nn 3 --dropout",
            "vw: --dropout keeps something that VW does not save, "
            "so that learning could not be resumed exactly",
        ),
        (
            BINARY,
            "--autolink 1",
            "vw: autolink is not known to go on from a saved model as if nothing had happened",
        ),
        (
            MULTICLASS,
            "--oaa 3 --scores",
            "vw: --scores gives no probabilities: write --probabilities --loss_function logistic",
        ),
        (
            BINARY,
            "--no_such_flag",
            "vw: --no_such_flag --loss_function logistic: unrecognised option '--no_such_flag'",
        ),
        (BINARY, "-l", "vw: -l --loss_function logistic: Failed to convert --loss_function to f"),
        (BINARY, "--loss_function 'logistic", 'vw: args "--loss_function \'logistic": No closing quotation'),
        (BINARY, "--oaa 3", "vw: with these args VW does not learn a binary task"),
        (REGRESSION, "--cb_explore_adf", "vw: with these args VW does not learn a regression task"),
        (
            MULTICLASS,
            "",
            "vw: task multiclass needs args such as '--oaa 7 --probabilities --loss_function logistic', "
            "with 7 for the number of classes",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_named(task, args, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        VW(task, args=args)
    assert str(raised.value) == message
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_every_option_of_vw_that_names_a_file_is_refused():
    vw = Workspace([])
    helps = {}

    def collect(name, text, *rest):
        helps[name] = text
        return name

    vw._vw.get_options(collect, False)
    words = (" file", "directory", "socket", "server", "daemon", " port ", "print ")
    suspects = {name for name, text in helps.items() if any(word in f"{text.lower()} " for word in words)}
    about_what_is_refused = re.compile("csv_|dump_json_|search_|no_daemon|ldf_override|binary")
    found = sorted(name for name in suspects if not about_what_is_refused.match(name))
    assert {"daemon", "extra_metrics", "audit", "span_server"} <= set(found)
    for name in found:
        with pytest.raises(ConfigError, match=rf"^vw: --{name} "):
            VW(BINARY, args=f"--{name} x")


def test_too_many_classes():
    learner = VW(MULTICLASS, args="--oaa 2")
    with pytest.raises(ConfigError) as raised:
        learner.learn(small(30, n_classes=3))
    assert str(raised.value) == "vw: there are 3 classes by now, but args make room for 2 only"


def test_nothing_is_printed(capfd):
    learner = VW(BINARY, args="--log_level info --progress 1")
    batch = small(3)
    learner.progress(replace(batch, lines=["|a b:c:d|", "| x:nan", ":"]))
    learner.predict(replace(batch, lines=["||", "| a:x", ""]))
    learner.freeze().predict(batch)
    learner.restore(learner.state())
    del learner
    assert capfd.readouterr() == ("", "")


def test_a_line_is_one_example():
    batch = replace(small(1), lines=["| a\n1 | b"])
    with pytest.raises(BadRecord, match="expected one line of text for vw"):
        VW(BINARY).learn(batch)


def test_strict_parsing_names_the_text():
    learner = VW(BINARY, args="--strict_parse")
    batch = replace(small(1), lines=["| a:1 b:2:3"])
    for method in (learner.learn, learner.predict):
        with pytest.raises(BadRecord, match=r"expected text that vw can .*malformed example"):
            method(batch)
    assert learner.progress(small(5)).shape == (5,)


# --- state ------------------------------------------------------------------------------------------------

RESUMED = (
    (BINARY, "--random_seed 11 --nn 2"),
    (BINARY, "-b 20 --ngram 2 --skips 1 --initial_weight 0.1"),
    (BINARY, "--noconstant --ignore w --l1 1e-6 --hash all"),
    (BINARY, "--boosting 3"),
    (BINARY, "--lrq aw2 -l 0.1"),
    (BINARY, "--freegrad"),
    (BINARY, "--baseline --classweight 1:2"),
    (BINARY, "--marginal w --interactions aw --interactions aaw"),
    (BINARY, "--pistol --interact aw"),
    (BINARY, "--confidence"),
    (BINARY, "--loss_function=hinge --holdout_off --constant 0.5 --feature_limit 2"),
    (REGRESSION, "--min_prediction -1 --max_prediction 2 --initial_t 3 --sgd -l .01"),
    (REGRESSION, "--loss_function expectile --expectile_q 0.3"),
    (MULTICLASS, "--ect 3 --classweight 1:2"),
    (MULTICLASS, "--log_multi 3"),
    (MULTICLASS, "--recall_tree 3 --randomized_routing"),
    (MULTICLASS, "--oaa 3 --boosting 2"),
)


@pytest.mark.parametrize(("task", "args"), RESUMED)
def test_resumes_whatever_the_arguments(task, args):
    batch = small(200, n_classes=3 if task is MULTICLASS else 2)
    first, rest = batch.slice(0, 100), batch.slice(100, 200)
    uninterrupted, resumed = VW(task, seed=4, args=args), VW(task, seed=4, args=args)
    uninterrupted.learn(first)
    resumed.restore(uninterrupted.state())
    model = uninterrupted.freeze()
    np.testing.assert_array_equal(model.predict(rest), uninterrupted.predict(rest))
    np.testing.assert_array_equal(resumed.progress(rest), uninterrupted.progress(rest))
    np.testing.assert_array_equal(resumed.state()["model"], uninterrupted.state()["model"])


def test_the_seed_is_vws():
    batch = small()
    unequal = {digest(_learned(VW(BINARY, seed=seed, args="--nn 3"), batch).state()) for seed in (0, 1, 2)}
    assert len(unequal) == 3
    explicit = _learned(VW(BINARY, seed=1, args="--nn 3 --random_seed 2"), batch)
    assert digest(explicit.state()) == digest(_learned(VW(BINARY, seed=2, args="--nn 3"), batch).state())


def _learned(learner, batch):
    learner.learn(batch)
    return learner


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 100])
def test_what_is_no_model_is_refused(damage):
    learner = VW(BINARY)
    state = {**learner.state(), "model": np.frombuffer(damage, dtype=np.uint8)}
    with pytest.raises(StoreError, match="not a VW model"):
        learner.restore(state)
    with pytest.raises(StoreError, match="the state of a learner vw has no model in it"):
        learner.restore({**state, "model": None})
    assert learner.progress(small(3)).shape == (3,)


def test_a_model_that_ends_within_its_header_is_refused():
    learner = _learned(VW(BINARY, args="-q aw"), small())
    for length in (5, 20, 60):
        state = {**learner.state(), "model": learner.state()["model"][:length]}
        with pytest.raises(StoreError, match="not a VW model"):
            VW(BINARY, args="-q aw").restore(state)


def test_a_model_cannot_bring_arguments_that_write_files(tmp_path):
    learner = VW(BINARY, args="--ignore abcdefghijklmnopqrstuvwxyz0123456789")
    state = learner.freeze().state()
    path = tmp_path / "f"
    evil = f"-p {path}"
    honest = b"--ignore "
    model = state["model"].tobytes()
    start = model.index(honest)
    end = model.index(b"\0", start)
    patched = model[:start] + evil.encode()[: end - start].ljust(end - start) + model[end:]
    with pytest.raises(StoreError, match=r"this VW model cannot be used: vw: -p \(--predictions\)"):
        VW.load({**state, "model": np.frombuffer(patched, np.uint8)}).predict_one({"a": 1})
    with pytest.raises(StoreError, match=r"cannot be used: vw: -p \(--predictions\)"):
        VW.load({**state, "options": evil})
    assert not path.exists()


def test_models_are_not_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    learner = VW(BINARY)
    learner.restore(learner.state())
    learner.freeze().predict(small(2))
    assert not list(tmp_path.iterdir())


def test_threads_share_a_model():
    batch = small(300)
    learner = _learned(VW(BINARY, args="-q ::"), batch)
    expected = learner.predict(batch)
    model, found = learner.freeze(), {}

    def ask(number):
        found[number] = np.array([model.predict_one(row) for row in batch.rows])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for predictions in found.values():
        np.testing.assert_array_equal(predictions, expected)


def test_workspaces_are_given_back():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def use(times):
        for _ in range(times):
            learner = _learned(VW(BINARY), small(2))
            learner.restore(learner.state())
            learner.freeze().predict(small(2))

    use(20)
    before = resident()
    use(200)
    assert resident() - before < 40e6  # each of the 600 holds 4 MB


@pytest.mark.parametrize("args", ["data.txt", "-q ab data.txt", "--loss_function logistic /etc/passwd"])
def test_a_word_that_vw_would_read_as_a_file_is_refused(args):
    with pytest.raises(ConfigError, match="which VW would read as a data file"):
        VW(Task("binary"), args=args)
