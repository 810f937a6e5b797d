"""Imports point one way: along the flow of the data."""

import ast
from pathlib import Path

import penstock

ROOT = Path(penstock.__file__).parent

BELOW = {"errors", "registry", "state", "_native"}  # know nothing of the rest, and may be used anywhere

MAY_IMPORT = {
    "errors": set(),
    "registry": {"errors"},
    "state": set(),
    "events": BELOW,
    "codecs": BELOW | {"events", "decisions", "feedback", "sources"},
    "sources": BELOW | {"events", "codecs", "feedback"},
    "learners": BELOW | {"events"},
    "decisions": BELOW | {"events"},
    "feedback": BELOW | {"events", "decisions"},
    "joiner": BELOW | {"feedback"},
    "logs": BELOW | {"decisions", "feedback", "sources"},
    "bandits": BELOW | {"events", "decisions", "learners"},
    "drift": BELOW | {"events", "learners"},
    "replay": BELOW | {"events"},
    "anchors": BELOW | {"events"},
    "metrics": BELOW | {"events"},
    "notices": BELOW | {"bandits", "learners"},
    "gate": BELOW | {"bandits"},
    "trials": BELOW | {"bandits", "gate", "learners"},
    "shadow": BELOW | {"gate", "learners", "notices", "trials"},
    "outputs_config": set(),
    "components": BELOW,
    "config": BELOW
    | {"components", "outputs_config", "events", "learners", "drift", "replay", "sources", "trials"},
    "inputs": BELOW | {"config", "drift", "events", "notices"},
    "judging": BELOW | {"config", "events", "learners", "metrics"},
    "blame": BELOW,
    "lanes": BELOW
    | {"config", "events", "gate", "judging", "learners", "metrics", "notices", "shadow", "trials"},
    "beside": BELOW | {"events", "learners"},
    "engine": BELOW
    | {
        "beside",
        "blame",
        "inputs",
        "judging",
        "lanes",
        "events",
        "config",
        "anchors",
        "learners",
        "drift",
        "replay",
        "metrics",
        "notices",
        "shadow",
        "gate",
        "trials",
    },
    "bandit_engine": BELOW | {"bandits", "decisions", "gate", "notices", "shadow", "trials"},
    "bandit_config": BELOW
    | {
        "codecs",
        "components",
        "outputs_config",
        "bandit_engine",
        "bandits",
        "config",
        "joiner",
        "sources",
        "trials",
    },
    "retirement": BELOW | {"feedback"},
    "joined_engine": BELOW
    | {"bandit_engine", "feedback", "joiner", "logs", "notices", "retirement", "sources"},
    "tensors": BELOW,
    "manifests": BELOW,
    "snapshots": BELOW | {"bandits", "events", "learners", "manifests", "tensors"},
    "verdicts": BELOW,
    "checkpoints": BELOW | {"tensors"},
    "journal": BELOW,
    "dedup": BELOW | {"events"},
    "observers": BELOW | {"notices", "sources"},
    "saver": BELOW | {"checkpoints"},
    "kafka": BELOW
    | {
        "codecs",
        "config",
        "events",
        "feedback",
        "journal",
        "notices",
        "observers",
        "outputs_config",
        "predictor",
        "sinks",
        "snapshots",
        "sources",
        "tensors",
    },
    "status": {"observers"},
    "monitor": BELOW | {"notices", "observers", "outputs_config", "snapshots", "status"},
    "log_lines": {"notices", "observers", "status"},
    "explain": BELOW | {"bandit_engine", "bandits", "decisions", "engine", "events", "learners", "notices"},
    "actor": BELOW | {"bandits", "decisions", "events", "feedback", "snapshots"},
    "stores": BELOW,
    "sinks": BELOW | {"feedback"},
    "predictor": BELOW
    | {
        "actor",
        "bandits",
        "decisions",
        "events",
        "feedback",
        "learners",
        "sinks",
        "snapshots",
        "stores",
        "tensors",
    },  # never engine, runner, sources
}
FRONTS = {
    "calibrate",
    "bandit_demo",
    "bandit_evaluate",
    "recovery",
    "runner",
    "evaluate",
    "report",
    "dead_letters",
    "dlq",
    "outputs",
    "inventory",
    "demo",
    "produce",
    "daemon",
    "checkup",
    "replay_log",
    "cli",
    "__init__",
    "__main__",
}


def imports(path):
    """Rooms of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "penstock":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("penstock."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("penstock."))


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_imports_point_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in ROOT.rglob("*.py")
        if room(path) not in FRONTS | {"_native"}
        for name in imports(path)
        if name != room(path) and name not in MAY_IMPORT[room(path)]
    ]
    assert wrong == []


def test_every_room_is_known():
    rooms = {room(path) for path in ROOT.rglob("*.py")}
    assert rooms <= MAY_IMPORT.keys() | FRONTS | {"_native"}


def test_no_file_is_two_rooms():
    long = {path.name: n for path in ROOT.rglob("*.py") if (n := len(path.read_text().splitlines())) > 650}
    assert long == {}
