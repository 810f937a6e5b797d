"""The command line: parse, call one function, print what it returns. Nothing is decided here."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.errors import ConfigError, PenstockError

if TYPE_CHECKING:
    from penstock.bandit_config import BanditPipeline
    from penstock.config import Pipeline

__all__ = ["main"]

_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    0 done, 2 bad usage or configuration, 3 bad data over the tolerated rate, 4 a store or service that
    cannot be used, 1 anything else. An error is one message on stderr; ``--debug`` shows where it arose.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING if arguments.quiet else logging.INFO)
    try:
        code: int = arguments.function(arguments)
        sys.stdout.flush()
    except PenstockError as error:
        if arguments.debug:
            raise
        print(f"penstock: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`penstock … | head`); nothing is left to be told to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        print(
            f"penstock: internal error: {type(error).__name__}: {error} (--debug shows where)",
            file=sys.stderr,
        )
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    common.add_argument("--quiet", "-q", action="store_true", help="print results and errors only")

    parser = argparse.ArgumentParser(
        prog="penstock",
        description="Online learning with a gate: nothing new serves before it has proved itself.",
    )
    parser.add_argument("--version", action="version", version=f"penstock {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    demo = command("demo", _demo, "the main job on bundled real data, in under a minute")
    demo.add_argument(
        "name",
        nargs="?",
        choices=["gate", "bandit"],
        default="gate",
        help="gate: models race, drift, and are promoted (the default); bandit: policies decide",
    )
    demo.add_argument("--out", type=Path, default=Path("penstock-demo"), help="directory to write to")

    evaluate = command(
        "evaluate", _evaluate, "score learners on logged data: predict, score, then learn each event"
    )
    _add_pipeline(evaluate)
    evaluate.add_argument("--limit", type=_positive, metavar="N", help="stop after N events")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    evaluate.add_argument("--report", type=Path, metavar="FILE", help="write a page with curves to FILE")
    evaluate.add_argument(
        "--progress",
        "-P",
        type=_progress,
        default=2.0,
        metavar="N",
        help="print a line every N events, or, with a decimal point, whenever the count has grown N-fold",
    )

    run = command("run", _run, "learn from a source until it ends or SIGTERM comes; resumes where it was")
    _add_pipeline(run)
    run.add_argument("--follow", action="store_true", help="wait for more at the end of a file")

    snapshots = command("snapshots", _snapshots, "look at stored models, and move what serves")
    snapshots.add_argument("action", choices=["ls", "show", "promote", "rollback", "verify"])
    snapshots.add_argument("path", type=Path, help="directory of the snapshots")
    snapshots.add_argument("version", nargs="?", help="a number or an alias; `serving` where it makes sense")
    snapshots.add_argument("--json", action="store_true", help="print JSON")

    command("schema", _schema, "print the JSON Schema of configuration files")
    return parser


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a pipeline, in YAML")
    parser.add_argument("--data", metavar="FILE", help="read FILE instead of the configuration's source")
    parser.add_argument("--learner", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument(
        "--batch", type=_positive, default=4096, metavar="N", help="events read at a time; changes no result"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the configuration's")


def _pipeline(arguments: argparse.Namespace) -> Pipeline:
    from penstock import config

    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # where a `module:Class` of one's own is looked for, after everything else
    pipeline = config.load(arguments.config, data=arguments.data, seed=arguments.seed)
    return pipeline.restricted(arguments.learner) if arguments.learner else pipeline


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.name == "bandit":
        from penstock import bandit_demo

        return bandit_demo.run()
    from penstock import demo

    return demo.run(arguments.out)


def _evaluate(arguments: argparse.Namespace) -> int:
    from penstock.evaluate import evaluate, results_table

    if arguments.report is not None and not arguments.report.parent.is_dir():
        raise ConfigError(f"--report {arguments.report}: there is no directory {arguments.report.parent}")
    if _is_bandit(arguments):
        return _evaluate_policies(arguments)
    result = evaluate(
        _pipeline(arguments),
        limit=arguments.limit,
        batch=arguments.batch,
        progress=arguments.progress,
        table=None if arguments.quiet else sys.stderr,
        curves=arguments.report is not None,
    )
    if not arguments.quiet or not arguments.json:
        print("", *results_table(result), "", sep="\n", file=sys.stderr)
    if not arguments.quiet:
        rejected = f", {result.rejected:,} bad records left out" if result.rejected else ""
        print(
            f"{result.events:,} events in {result.seconds:.2f} s{rejected}; digest {result.digest[:16]}",
            file=sys.stderr,
        )
    if arguments.report is not None:
        from penstock import report

        report.write(arguments.report, result.as_report())
        if not arguments.quiet:
            print(f"report: {arguments.report}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(result.as_json()))
    return 0


def _is_bandit(arguments: argparse.Namespace) -> bool:
    from penstock import config

    return config.read(arguments.config).get("task") == "bandit"


def _bandit_pipeline(arguments: argparse.Namespace, *, kind: str = "log") -> BanditPipeline:
    """Read a bandit pipeline; `kind` is what ``--data`` names."""
    from penstock import bandit_config, config

    given = config.read(arguments.config)
    given.setdefault("name", arguments.config.stem)
    if arguments.seed is not None:
        given["seed"] = arguments.seed
    if arguments.data is not None:
        source = given.get("source")
        given["source"] = {
            **(source if isinstance(source, dict) else {}),
            "kind": "log",
            "path": arguments.data,
        }
    pipeline = bandit_config.parse(given, where=str(arguments.config))
    if arguments.learner:
        pipeline = pipeline.restricted(arguments.learner)
    return pipeline


def _evaluate_policies(arguments: argparse.Namespace) -> int:
    from penstock import bandit_evaluate

    result = bandit_evaluate.evaluate(_bandit_pipeline(arguments), limit=arguments.limit)
    if not arguments.quiet or not arguments.json:
        print(*result.table(), sep="\n", file=sys.stderr)
    if not arguments.quiet:
        print(
            f"\n{result.events:,} decisions in {result.seconds:.2f} s, "
            f"{result.rejected:,} bad records left out; digest {result.digest[:16]}",
            file=sys.stderr,
        )
    if arguments.report is not None:
        from penstock.report import bandit_page

        bandit_page.write(arguments.report, result.as_report())
        if not arguments.quiet:
            print(f"report: {arguments.report}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(result.as_json()))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from penstock import runner

    bandit = _is_bandit(arguments)
    pipeline = _bandit_pipeline(arguments, kind="feedback") if bandit else _pipeline(arguments)
    if arguments.follow:
        pipeline = pipeline.with_source(follow=True)
    stop = False

    def ask_to_stop(signum: int, frame: Any) -> None:
        nonlocal stop
        stop = True
        signal.signal(signum, before[signal.Signals(signum)])  # asked once more, it ends at once

    before = {signum: signal.signal(signum, ask_to_stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        outcome = runner.run(pipeline, batch=arguments.batch, should_stop=lambda: stop)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    print(
        f"{'stopped' if outcome.stopped else 'done'} at event {outcome.events:,}"
        f" ({outcome.events - outcome.resumed_at:,} learned in this run, {outcome.rejected:,} bad records)"
        + (f"; version {outcome.serving} serves" if outcome.serving else "")
        + f"; digest {outcome.digest}"
    )
    return 0


def _snapshots(arguments: argparse.Namespace) -> int:
    from penstock import inventory

    version = arguments.version
    if version is not None and arguments.action in ("ls", "verify") and not inventory.is_number(version):
        raise ConfigError(f"`snapshots {arguments.action}` takes a version number, got {version!r}")
    return inventory.COMMANDS[arguments.action](arguments.path, version, arguments.json)


def _schema(arguments: argparse.Namespace) -> int:
    from penstock import config

    print(json.dumps(config.json_schema(), indent=2))
    return 0


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text}")
    return value


def _progress(text: str) -> float | int:
    try:
        value: float | int = float(text) if "." in text else int(text)
    except ValueError:
        value = 0
    if value < 1 or (value == 1.0 and isinstance(value, float)):
        raise argparse.ArgumentTypeError(f"expected an integer >= 1 or a factor > 1.0, got {text}")
    return value


def _version() -> str:
    import penstock

    return penstock.__version__
