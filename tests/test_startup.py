"""What is slow to import is imported by whoever needs it, and by nobody else."""

import subprocess
import sys

import pytest

HEAVY = ("confluent_kafka", "pandas", "pyarrow", "river", "scipy", "sklearn", "vowpalwabbit")
SCRIPT = """
import sys
{code}
sys.stderr.write(" ".join(name for name in {names!r} if name in sys.modules))
"""
HELP = """
from penstock.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
"""
EVALUATE = 'from penstock.cli import main; assert main(["evaluate", "--quiet", "pipeline.yaml"]) == 0'


def imported(code, names, path):
    """Which of `names` a new process has imported once it has run `code`."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(code=code, names=tuple(names))],
        cwd=path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stderr.splitlines()[-1].split() if done.stderr else []


@pytest.mark.parametrize("code", ["import penstock", HELP], ids=["import", "help"])
def test_neither_importing_nor_help_needs_anything(code, tmp_path):
    assert imported(code, [*HEAVY, "numpy", "pydantic"], tmp_path) == []


def test_evaluating_lines_imports_no_library_of_other_things(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"x": 1, "label": 1}\n{"x": 2, "label": 0}\n' * 5)
    (tmp_path / "pipeline.yaml").write_text("source: {kind: file, path: events.jsonl}\n")
    assert imported(EVALUATE, [*HEAVY, "numpy"], tmp_path) == ["numpy"]
