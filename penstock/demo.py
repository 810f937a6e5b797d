"""The whole story on real data that ships with River: race, drift, shadow, promotion, swap under load."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import sys
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from string import Template
from typing import Any, Final

from penstock.errors import ConfigError, PenstockError

__all__ = ["run"]

_DRIFT_AT: Final = 12_500
_LAPS: Final = 20
_MARKER: Final = ".penstock-demo"  # in directories that a demo made, and may remove again

_PIPELINE: Final = Template("""\
# The pipeline of `penstock demo`. Run it again yourself: penstock evaluate $directory/pipeline.yaml
name: demo
task: binary
source:
  kind: river
  dataset: Phishing                        # web pages, nine properties each: is the page phishing?
  repeat: $laps                               # 1,250 pages, again and again, to make a stream
  inject: {at: $drift_at, flip: true}           # from here on the labels mean the opposite: a concept drift
learners:
  sgd: {kind: sgd}
  vw: {kind: vw, args: "--loss_function logistic -q ::"}
  trees: {kind: river, model: tree.HoeffdingTreeClassifier}
drift:
  - {kind: adwin, on: loss, direction: up, react: warm_restart}
replay: {kind: reservoir, size: 2000, ratio: 0.5}
shadow: {refresh_every: 1000, min_effect: 0.01}
snapshots: {path: $directory/snapshots}
checkpoint: {path: $directory/checkpoint}
""")


def run(directory: Path) -> int:
    """Write a pipeline to `directory`, run it beside a process that keeps predicting, tell what happens.

    Raises
    ------
    ConfigError
        If `directory` exists and was not made by an earlier demo.
    """
    from penstock import config, report, runner
    from penstock.evaluate import evaluate

    _make(directory)
    # River's trees can only be stored as pickles. A key for this demonstration alone vouches for them.
    os.environ.setdefault("PENSTOCK_KEY", secrets.token_hex(32))
    path = directory / "pipeline.yaml"
    path.write_text(_PIPELINE.substitute(directory=directory, laps=_LAPS, drift_at=_DRIFT_AT))
    pipeline = config.load(path)

    _tell(
        f"""
        PENSTOCK DEMO: models that learn from every event, and a gate that nothing new passes unproved

        The data    Web pages, one after the other; each is phishing or not. 1,250 real pages that ship
                    with River, shown {_LAPS} times over. At event {_DRIFT_AT:,} we turn the labels around:
                    what was phishing is now legitimate. The world changes, and nobody tells the models.
        The race    Three learners see every page: `sgd` (Penstock's own), `vw` (Vowpal Wabbit) and
                    `trees` (a River Hoeffding tree). Each predicts first and learns the answer after.
        The app     Another process asks the serving model for predictions all the while, without pause.
        """
    )
    context = multiprocessing.get_context("spawn")
    stop, answers = context.Event(), context.Queue()
    app = context.Process(target=_app, args=(directory / "snapshots", stop, answers), daemon=True)
    app.start()
    started = time.perf_counter()
    _tell("What happens (event: what)\n")
    teller = _Teller()
    try:
        outcome = runner.run(pipeline, on_notice=teller)
        teller.close()
        seconds = time.perf_counter() - started
        stop.set()
        tally = answers.get(timeout=30)
    finally:
        stop.set()
        app.join(timeout=10)
        if app.is_alive():
            app.kill()

    offline = evaluate(pipeline, curves=True)
    page = directory / "report.html"
    note = (
        f"At event {_DRIFT_AT:,} a concept drift was injected: from there on every label means its opposite."
    )
    report.write(
        page, offline.as_report(notes=[note], marks=[{"event": _DRIFT_AT, "text": "labels turned around"}])
    )

    _tell("\nHow good they were (share of right answers, each given before the label was seen)\n")
    for name, scores in {**offline.learners, **offline.baselines}.items():
        what = " (a baseline that learns nothing else)" if name in offline.baselines else ""
        _tell(f"  {name:<10} {scores['accuracy']:6.1%}{what}")
    same = "the same" if offline.digest == outcome.digest else "NOT the same"
    _tell(
        f"""
        The daemon  learned {outcome.events:,} events in {seconds:.1f} s, with snapshots and checkpoints.
        Offline     `penstock evaluate` over the same events ended in {same} state, to the bit:
                    digest {offline.digest[:16]}.
        The app     made {tally["answered"]:,} predictions meanwhile, from {tally["versions"]} snapshots,
                    swapped under it {tally["versions"] - 1} times. Failed predictions: {tally["failed"]}.

        Look further
          the report       {page}
          the pipeline     {path}
          the snapshots    {_command("penstock")} snapshots ls {directory / "snapshots"}
          predict yourself {_command("python")} -c "from penstock import Predictor; \\
                             app = Predictor('{directory / "snapshots"}', trust_pickle=True); \\
                             print(app.predict({{'https': 1.0}}))"
        """
    )
    return 0 if offline.digest == outcome.digest and not tally["failed"] else 1


def _command(name: str) -> str:
    """How to call a program of this installation from here."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(beside) else os.path.relpath(beside)


def _make(directory: Path) -> None:
    if directory.exists():
        if not (directory / _MARKER).exists() and any(directory.iterdir()):
            raise ConfigError(f"{directory} exists and was not made by a demo: name another with --out")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / _MARKER).touch()


def _tell(text: str) -> None:
    """Print a paragraph, its common indentation taken away."""
    lines = text.split("\n")
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    print("\n".join(line[indent:] if indent >= 8 else line for line in lines), flush=True)


class _Teller:
    """Prints what the engine reports; refreshes, which come often, are only counted."""

    def __init__(self) -> None:
        self._refreshes = 0

    def __call__(self, notice: Any) -> None:
        if notice.what == "promoted" and notice.how == "refresh":
            self._refreshes += 1
            return
        self.close()
        name = {"opened": "candidate"}.get(notice.what, notice.what)
        print(f"  {notice.event:>7,}  {name:<9}  {notice.text}", flush=True)

    def close(self) -> None:
        if self._refreshes:
            times = "once" if self._refreshes == 1 else f"{self._refreshes} times"
            print(f"  {'':>7}  refreshed  {times} on schedule, with newer weights", flush=True)
        self._refreshes = 0


def _app(snapshots: Path, stop: Event, answers: Queue[dict[str, int]]) -> None:
    """Play the application: ask for one prediction after the other until told to stop."""
    from river import datasets

    from penstock import Predictor

    pages = [page for page, _ in datasets.Phishing()]
    answered = failed = 0
    versions: set[int] = set()
    try:
        with Predictor(snapshots, wait_s=120.0, poll_s=0.02) as predictor:
            while not stop.is_set():
                for page in pages:
                    try:
                        prediction = predictor.predict_detailed(page)
                    except PenstockError:
                        failed += 1
                    else:
                        answered += 1
                        versions.add(prediction.snapshot)
    except PenstockError as error:
        print(f"the app: {error}", file=sys.stderr)
        failed += 1
    answers.put({"answered": answered, "failed": failed, "versions": len(versions)})
