"""The command line: parse, call one function, print what it returns. Nothing is decided here."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

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
    as_json = getattr(arguments, "log", "text") == "json"
    if as_json:
        from penstock import log_lines

        log_lines.install(arguments.config.stem)
    try:
        code: int = arguments.function(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except PenstockError as error:
        if arguments.debug:
            raise
        if as_json:
            log_lines.say("failed", str(error), level=logging.ERROR, exit_code=error.exit_code)
        else:
            print(f"penstock: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`penstock … | head`): nothing is left to be told to it, and what
        # is still in a buffer goes nowhere when the interpreter ends.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        text = f"{type(error).__name__}: {error}"
        if as_json:
            log_lines.say("failed", text, level=logging.ERROR, exit_code=1)
        else:
            print(f"penstock: internal error: {text} (--debug shows where)", file=sys.stderr)
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
    demo.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        help="where gate writes to (default: penstock-demo); bandit writes nothing",
    )

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
        help="print a line every N events, or, with a decimal point, whenever the count has grown N-fold "
        "(of learners; policies are told of at the end)",
    )

    run = command("run", _run, "learn from a source until it ends or SIGTERM comes; resumes where it was")
    _add_pipeline(run)
    run.add_argument("--follow", action="store_true", help="wait for more at the end of a file")
    run.add_argument(
        "--log", choices=["text", "json"], default="text", help="json: one object a line, on stderr"
    )
    run.add_argument(
        "--standby", action="store_true", help="wait while another run uses the checkpoint, then go on"
    )
    run.add_argument(
        "--new-journal", action="store_true", help="begin an order journal, where the checkpoint's was lost"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="check all that is needed, one line each, and learn nothing"
    )

    replay = command(
        "replay", _replay, "rebuild a past state from the log, in the order in which it was learned"
    )
    _add_pipeline(replay)
    replay.add_argument(
        "--until",
        metavar="POSITION",
        help="a number of events, TOPIC[PARTITION]@OFFSET, FILE:LINE, `checkpoint` (the default) or `end`",
    )
    replay.add_argument(
        "--explain", metavar="EVENT", help="what was known when it was scored: a number, a position or an id"
    )
    replay.add_argument("--json", action="store_true", help="print one JSON object on stdout")

    produce = command("produce", _produce, "send the events of a pipeline's source to a Kafka topic")
    produce.add_argument("config", type=Path, metavar="FROM", help="the pipeline whose source is sent")
    produce.add_argument("--data", metavar="FILE", help="read FILE instead of the configuration's source")
    produce.add_argument("--seed", type=int, metavar="N", help="instead of the configuration's")
    produce.add_argument(
        "--to", type=Path, required=True, metavar="TO", help="the pipeline that learns from the topic"
    )
    produce.add_argument("--limit", type=_positive, metavar="N", help="stop after N events")
    produce.add_argument("--rate", type=_rate, metavar="PER_S", help="events a second, at most")
    produce.add_argument(
        "--partitions", type=_positive, metavar="N", help="of the topic, if it has to be made (4)"
    )

    answer = command("answer", _answer, "answer requests from a topic with what serves, each exactly once")
    answer.add_argument("config", type=Path, metavar="CONFIG", help="a pipeline, in YAML, with `answers`")
    answer.add_argument("--instance", metavar="NAME", help="a name that this copy keeps over restarts")

    dlq = command("dlq", _dlq, "look at dead letters, or send them back to where they came from")
    dlq.add_argument("action", choices=["ls", "replay"])
    dlq.add_argument("config", type=Path, metavar="CONFIG", help="a pipeline, in YAML")
    dlq.add_argument("--limit", type=_positive, metavar="N", help="N letters at most")
    dlq.add_argument("--reason", metavar="REGEX", help="only those whose reason it is found in")
    dlq.add_argument("--to-topic", metavar="TOPIC", help="send them here instead")
    dlq.add_argument("--to-file", type=Path, metavar="FILE", help="append them to a file, a line each")

    snapshots = command("snapshots", _snapshots, "look at stored models, and move what serves")
    snapshots.add_argument(
        "action",
        choices=["ls", "show", "log", "promote", "rollback", "hold", "release", "verify", "mirror"],
    )
    snapshots.add_argument("path", help="directory of the snapshots; of `mirror`, or kafka://host:port/topic")
    snapshots.add_argument(
        "version",
        nargs="?",
        help="a number or an alias; `serving` where it makes sense; of `mirror`: where to",
    )
    snapshots.add_argument("--follow", action="store_true", help="mirror: go on until interrupted")
    snapshots.add_argument(
        "--kafka", action="append", default=[], metavar="KEY=VALUE", help="mirror: a setting of librdkafka"
    )
    snapshots.add_argument("--json", action="store_true", help="print JSON")

    detectors = command("drift", _drift, "choose the threshold of a drift detector by its false alarms")
    detectors.add_argument("action", choices=["calibrate"])
    detectors.add_argument("config", type=Path, nargs="?", help="calibrate the detectors of this pipeline")
    detectors.add_argument("--detector", metavar="KIND", help="or this one, or `all`")
    detectors.add_argument(
        "--false-alarm-every",
        type=_positive,
        default=100_000,
        metavar="N",
        help="wanted, in events",
    )
    detectors.add_argument(
        "--series", metavar="S", help="what is watched: bernoulli:P, beta:A,B, uniform or gaussian"
    )
    detectors.add_argument("--change", type=float, metavar="D", help="of the mean: show how soon it is seen")
    detectors.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another parameter of the detector"
    )
    detectors.add_argument("--json", action="store_true", help="print JSON")

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

        if arguments.out is not None:
            raise ConfigError(f"--out {arguments.out}: `demo bandit` writes nothing")
        return bandit_demo.run()
    from penstock import demo

    return demo.run(arguments.out or Path("penstock-demo"))


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


def _bandit_pipeline(
    arguments: argparse.Namespace, *, kind: Literal["log", "feedback"] = "log"
) -> BanditPipeline:
    """Read a bandit pipeline; `kind` is what ``--data`` names: a log, or the directory of feedback."""
    from penstock import bandit_config, config

    given = config.read(arguments.config)
    given.setdefault("name", arguments.config.stem)
    if arguments.seed is not None:
        given["seed"] = arguments.seed
    if arguments.data is not None:
        source = given["source"] if isinstance(given.get("source"), dict) else {}
        if source.get("kind") == "as_bandit":
            raise ConfigError(
                f"--data {arguments.data}: there is no place for it in {arguments.config}: the events of an "
                f"as_bandit source are those of `source.of`"
            )
        given["source"] = {**source, "kind": kind, "path": arguments.data}
    pipeline = bandit_config.parse(given, where=str(arguments.config))
    if arguments.learner:
        pipeline = pipeline.restricted(arguments.learner)
    return pipeline


def _evaluate_policies(arguments: argparse.Namespace) -> int:
    from penstock import bandit_evaluate

    result = bandit_evaluate.evaluate(
        _bandit_pipeline(arguments),
        limit=arguments.limit,
        batch=arguments.batch,
        out=None if arguments.quiet else sys.stderr,
    )
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
    if arguments.dry_run:
        return _dry_run(arguments)
    from penstock import daemon

    pipeline = _runnable(arguments)
    if arguments.new_journal:
        from penstock.recovery import new_journal

        print(f"began a new journal at {new_journal(pipeline)}: nothing before it can be replayed")
    outcome = daemon.run(
        pipeline,
        batch=arguments.batch,
        standby=arguments.standby,
        json_log=arguments.log == "json",
    )
    if outcome is None:
        print("stopped standing by")
        return 0
    print(
        f"{'stopped' if outcome.stopped else 'done'} at event {outcome.events:,}"
        f" ({outcome.events - outcome.resumed_at:,} learned in this run, {outcome.rejected:,} bad records"
        + (f", {outcome.duplicates:,} duplicates)" if outcome.duplicates else ")")
        + (f"; version {outcome.serving} serves" if outcome.serving else "")
        + f"; digest {outcome.digest}"
    )
    counted = [f"{n:,} {what.replace('_', ' ')}" for what, n in outcome.counts.items() if n]
    if counted:
        print(f"feedback since the beginning: {', '.join(counted)}")
    return 0


def _runnable(arguments: argparse.Namespace) -> Pipeline | BanditPipeline:
    bandit = _is_bandit(arguments)
    pipeline = _bandit_pipeline(arguments, kind="feedback") if bandit else _pipeline(arguments)
    return pipeline.with_source(follow=True) if getattr(arguments, "follow", False) else pipeline


def _dry_run(arguments: argparse.Namespace) -> int:
    from penstock import checkup

    code = 0
    for check in checkup.checks(lambda: _runnable(arguments), standby=arguments.standby):
        print(check.line(), flush=True)
        code = code if check.problem is None else checkup.worse(code, check.problem)
    return code


def _replay(arguments: argparse.Namespace) -> int:
    from penstock import replay_log

    found = replay_log.replay(
        _runnable(arguments), until=arguments.until, explain=arguments.explain, batch=arguments.batch
    )
    if arguments.json:
        print(json.dumps(found.as_json()))
    else:
        print(*found.lines(), sep="\n")
    return 0


def _produce(arguments: argparse.Namespace) -> int:
    from penstock import config
    from penstock.produce import produce

    sent = produce(
        config.load(arguments.config, data=arguments.data, seed=arguments.seed),
        config.load(arguments.to),
        limit=arguments.limit,
        rate=arguments.rate,
        partitions=arguments.partitions,
    )
    print(
        f"{sent.events:,} events sent to {sent.topic} ({sent.partitions} partitions) in {sent.seconds:.2f} s"
        + (f"; {sent.rejected:,} bad records left out" if sent.rejected else "")
    )
    return 0


def _any_pipeline(arguments: argparse.Namespace) -> Pipeline | BanditPipeline:
    from penstock import bandit_config, config

    given = config.read(arguments.config)
    given.setdefault("name", arguments.config.stem)
    parse: Any = bandit_config.parse if given.get("task") == "bandit" else config.parse
    pipeline: Pipeline | BanditPipeline = parse(given, where=str(arguments.config))
    return pipeline


def _answer(arguments: argparse.Namespace) -> int:
    from penstock.kafka.answers import answer
    from penstock.kafka.letters import connected

    pipeline = _any_pipeline(arguments)
    spec, stored = pipeline.answers, pipeline.snapshots
    if spec is None or stored is None:
        raise ConfigError(f"{arguments.config}: `{'answers' if spec is None else 'snapshots'}`: missing")
    if arguments.instance is not None:
        spec = spec.model_copy(update={"instance": arguments.instance})
    stop = threading.Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        outcome = answer(
            spec,
            connected(spec, pipeline.source, where="answers"),
            pipeline=pipeline.name,
            snapshots=stored.path,
            bandit=pipeline.task == "bandit",
            trust_pickle=stored.trust_pickle,
            should_stop=stop.is_set,
        )
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    print(f"stopped after {outcome.requests:,} requests, {outcome.errors:,} of them answered with an error")
    return 0


def _dlq(arguments: argparse.Namespace) -> int:
    from penstock import dlq

    pipeline = _any_pipeline(arguments)
    if arguments.action == "ls":
        dlq.list_letters(pipeline, limit=arguments.limit, reason=arguments.reason, show=print)
        return 0
    n_sent, left = dlq.replay(
        pipeline,
        limit=arguments.limit,
        reason=arguments.reason,
        to_topic=arguments.to_topic,
        to_file=arguments.to_file,
    )
    print(f"sent {n_sent:,} dead letters back")
    if left:
        print(f"{len(left):,} cannot be sent back:", *left, sep="\n  ")
    return 0


def _snapshots(arguments: argparse.Namespace) -> int:
    from penstock import inventory

    version = arguments.version
    if arguments.action == "mirror":
        from penstock.kafka import copying

        return copying.copy(arguments.path, version, follow=arguments.follow, settings=arguments.kafka)
    if version is not None and arguments.action in ("ls", "verify") and not inventory.is_number(version):
        raise ConfigError(f"`snapshots {arguments.action}` takes a version number, got {version!r}")
    return inventory.COMMANDS[arguments.action](Path(arguments.path), version, arguments.json)


def _drift(arguments: argparse.Namespace) -> int:
    from penstock import calibrate, config

    if (arguments.config is None) == (arguments.detector is None):
        raise ConfigError("`drift calibrate` needs a configuration or a --detector")
    if arguments.config is not None:
        pipeline = config.load(arguments.config)
        found = calibrate.of_pipeline(pipeline, arguments.series, arguments.change)
    else:
        found = calibrate.of_kind(
            arguments.detector,
            arguments.false_alarm_every,
            arguments.series or "bernoulli:0.2",
            dict(_setting(text) for text in arguments.set),
            arguments.change,
        )
    if arguments.json:
        print(json.dumps([one.as_json() for one in found]))
    else:
        print(*calibrate.table(found), sep="\n")
    return 0


def _setting(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE``; a value that is no JSON is text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _schema(arguments: argparse.Namespace) -> int:
    from penstock import bandit_config

    print(json.dumps(bandit_config.json_schema(), indent=2))
    return 0


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text}")
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
