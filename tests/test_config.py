"""Mistakes in a configuration are found before anything runs, and named where they stand."""

from pathlib import Path

import pytest

from penstock import bandit_config, bandits, config
from penstock.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SOURCE = {"kind": "river", "dataset": "Phishing"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    assert config.load(path).name == path.stem


def test_smallest_configuration():
    pipeline = config.parse({"source": SOURCE})
    assert list(pipeline.learners) == ["sgd"]
    assert pipeline.first_serving == "sgd"


TOPIC = {"kind": "kafka", "bootstrap": "localhost:9092", "topics": "a"}
MISTAKES = [
    ({"tik": 5}, "`tik`: unknown key (did you mean `tick`?)"),
    ({"tick": 0}, "`tick`: input should be greater than or equal to 1, got 0"),
    (
        {"task": "classification"},
        "`task`: expected one of binary, multiclass, regression, bandit, got 'classification'",
    ),
    (
        {"learners": {"a": {"kind": "sgdd"}}},
        "`learners.a`: no learner is called 'sgdd' (did you mean 'sgd'?)",
    ),
    ({"learners": {"a": {}}}, "`learners.a`: expected a mapping with a `kind`"),
    ({"learners": {}}, "`learners`"),
    (
        {"learners": {"a": {"kind": "sgd", "learning_rate": -1}}},
        "`learners.a.learning_rate`: input should be greater than 0, got -1",
    ),
    (
        {"learners": {"a": {"kind": "sgd", "learning_rat": 1}}},
        "`learners.a.learning_rat`: unknown key (did you mean `learning_rate`?)",
    ),
    ({"serving": "b"}, "`serving` names 'b'; the learners are sgd"),
    ({"drift": [{"kind": "adwin", "delta": 2}]}, "`drift[0].delta`: input should be less than 1, got 2"),
    ({"drift": [{"kind": "adwin", "learners": ["x"]}]}, "`drift[0].learners` names 'x'"),
    ({"drift": [{"kind": "adwin", "react": "warm_restart"}]}, "needs a `replay` buffer"),
    ({"task": "regression", "replay": {"kind": "balanced"}}, "`replay.kind: balanced` needs classes"),
    (
        {"replay": {"kind": "reservoir", "size": 0}},
        "`replay.size`: input should be greater than or equal to 1",
    ),
    ({"snapshots": {"path": "x"}}, "`snapshots` needs `shadow`"),
    ({"name": "../x"}, "`name`"),
    (
        {"source": {**TOPIC, "topics": ["a", "b"]}, "dead_letters": {"topic": "b"}},
        "`dead_letters.topic` and `source.topics` are both 'b': each needs its own",
    ),
    (
        {"source": TOPIC, "dead_letters": {"topic": "b"}, "events": {"topic": "b"}},
        "`events.topic` and `dead_letters.topic` are both 'b'",
    ),
    *(
        (
            {"source": TOPIC, "checkpoint": {"path": "c"}, "dead_letters": {"path": f"x/../c{end}"}},
            f"`checkpoint.path` with {end} and `dead_letters.path` are both 'c{end}': each needs its own",
        )
        for end in (".previous", ".journal", ".lock")
    ),
    (
        {"source": {**TOPIC, "journal": "c"}, "checkpoint": {"path": "c"}},
        "`source.journal` and `checkpoint.path` are both 'c'",
    ),
    (
        {"source": {**TOPIC, "connect_timeout_s": float("inf")}},
        "`source.connect_timeout_s`: input should be less than or equal to 86400, got inf",
    ),
    ({"source": TOPIC, "snapshots": {"path": "x", "bootstrap": "h:1"}, "shadow": {}}, "need a `topic`"),
    (
        {"source": TOPIC, "answers": {"requests": "loop", "results": "loop"}},
        "`answers.results` and `answers.requests` are both 'loop': each needs its own",
    ),
    (
        {"source": TOPIC, "answers": {"requests": "r", "results": "a"}},
        "`answers.results` and `source.topics` are both 'a': each needs its own",
    ),
    (
        {"source": TOPIC, "answers": {"requests": "q", "results": "r", "decisions": "a"}},
        "`answers.decisions` and `source.topics` are both 'a': each needs its own",
    ),
    (
        {"source": TOPIC, "events": {"topic": "e"}, "answers": {"requests": "e", "results": "r"}},
        "`answers.requests` and `events.topic` are both 'e': each needs its own",
    ),
    ({"source": {**TOPIC, "group": ""}}, "`source.group`: string should have at least 1 character, got ''"),
    *(
        (
            {"source": {**TOPIC, "topics": topics}},
            "configuration: `source.topics`: expected a topic, or a list of them: up to 249 letters, digits, "
            f"`.`, `_` and `-`, got {topics!r}",
        )
        for topics in ("", [], 5, "bad topic!", ["a", ""])
    ),
    *(
        (
            {"source": {**TOPIC, "bootstrap": bootstrap}},
            "`source.bootstrap`: expected `host:port` of a broker, or several with commas, or `embedded`, "
            f"got {bootstrap!r}",
        )
        for bootstrap in ("http://h:9092", "127.0.0.1:99999", "h:9092,", "h:port", "h:0", "a b")
    ),
    (
        {"source": TOPIC, "events": {"topic": "e", "bootstrap": "h:1:2"}},
        "`events.bootstrap`: expected `host:port`",
    ),
]


def test_a_journal_may_be_where_it_is_anyway():
    given = {"source": {**TOPIC, "journal": "c.journal"}, "checkpoint": {"path": "c"}}
    assert config.parse(given).checkpoint.path == Path("c")


def test_a_bandit_writes_over_nothing_of_its_own_either():
    given = {
        "source": {"kind": "feedback", "path": "log"},
        "policies": {"a": {"kind": "ucb1"}},
        "checkpoint": {"path": "log"},
    }
    with pytest.raises(ConfigError, match=r"`source.path` and `checkpoint.path` are both 'log'"):
        bandit_config.parse({"task": "bandit", **given})


@pytest.mark.parametrize(("given", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistake_is_named(given, message):
    with pytest.raises(ConfigError) as caught:
        config.parse({"source": SOURCE, **given})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"task": "bandits"},
            "`task`: expected one of binary, multiclass, regression, bandit, got 'bandits' (did",
        ),
        ({"policies": {}}, "`task`: missing (with `policies` it is `bandit`)"),
        ({"task": "bandit"}, "`task`: expected one of binary, multiclass, regression here, got 'bandit'"),
    ],
)
def test_a_wrong_task_is_all_that_is_said(given, message):
    with pytest.raises(ConfigError) as caught:
        config.parse({"source": {"kind": "feedback", "path": "log"}, **given}, where="p.yaml")
    assert str(caught.value).startswith(f"p.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_source_is_needed():
    with pytest.raises(ConfigError, match="`source`: missing"):
        config.parse({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a", "expected a mapping of keys, got list"),
        ("", "expected a mapping of keys, got NoneType"),
        ("tick: 1\ntick: 2", "line 2: the key 'tick' is given twice"),
        ("tick: !!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_file_that_is_no_configuration(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"p\.yaml") as caught:
        config.load(path)
    assert message in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        config.load(tmp_path / "none.yaml")


def test_data_takes_the_place_of_the_path(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("source: {kind: file, path: a.csv, label: y}")
    source = config.load(path, data="b.csv").source
    assert source.parameters == {"path": "b.csv", "label": "y"}
    assert config.load(path, seed=7).seed == 7


def test_only_true_and_false_are_booleans(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "source: {kind: file, path: x.csv, label: y, classes: [no, yes]}\ndrift: [{kind: adwin, on: error}]"
    )
    pipeline = config.load(path)
    assert pipeline.source.parameters["classes"] == ["no", "yes"]
    assert pipeline.drift[0].on == "error"


def test_hash_covers_what_the_state_depends_on_and_nothing_else():
    plain = config.parse({"source": SOURCE})
    elsewhere = config.parse({"source": {**SOURCE, "repeat": 2}, "checkpoint": {"path": "x"}})
    assert elsewhere.hash() == plain.hash()
    assert config.parse({"source": {**SOURCE, "classes": ["a", "b"]}}).hash() != plain.hash()
    assert config.parse({"source": SOURCE, "tick": 100}).hash() != plain.hash()
    assert (
        config.parse({"source": SOURCE, "learners": {"sgd": {"kind": "sgd", "bits": 20}}}).hash()
        != plain.hash()
    )


def test_schema_knows_every_registered_component():
    text = str(bandit_config.json_schema())
    registries = (config.learners.LEARNERS, config.drift.DETECTORS, config.sources.SOURCES, bandits.POLICIES)
    for kind in (kind for registry in registries for kind in registry):
        assert f"'const': '{kind}'" in text


def test_restricted_keeps_serving_and_detectors_in_step():
    pipeline = config.parse(
        {
            "source": SOURCE,
            "learners": {"a": {"kind": "sgd"}, "b": {"kind": "sgd"}},
            "serving": "b",
            "drift": [{"kind": "adwin", "learners": ["a", "b"]}],
        }
    )
    only = pipeline.restricted(["a"])
    assert (list(only.learners), only.first_serving, only.drift[0].learners) == (["a"], "a", ["a"])
    with pytest.raises(ConfigError, match="--learner c: the learners are a, b"):
        pipeline.restricted(["c"])


def test_decisions_of_answers_are_what_a_bandit_learns_from():
    source = {"kind": "kafka", "bootstrap": "localhost:9092", "decisions": "d", "rewards": "w"}
    given = {"task": "bandit", "source": source, "policies": {"a": {"kind": "greedy"}}}
    answers = {"requests": "q", "results": "r"}
    assert bandit_config.parse({**given, "answers": {**answers, "decisions": "d"}}).answers.decisions == "d"
    for wrong, message in (
        ({"decisions": "w"}, "`answers.decisions` and `source.rewards` are both 'w'"),
        ({"results": "d"}, "`answers.results` and `source.decisions` are both 'd'"),
        ({"requests": "w"}, "`answers.requests` and `source.rewards` are both 'w'"),
    ):
        with pytest.raises(ConfigError, match=message):
            bandit_config.parse({**given, "answers": {**answers, **wrong}})
    with pytest.raises(ConfigError, match=r"`source\.group`: string should have at least 1 character"):
        bandit_config.parse({**given, "source": {**source, "group": ""}})
    with pytest.raises(ConfigError, match=r"`source\.bootstrap`: expected `host:port`"):
        bandit_config.parse({**given, "source": {**source, "bootstrap": "127.0.0.1:99999"}})
