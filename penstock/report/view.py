"""A report with the questions answered that several sections of the page ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from penstock.report.charts import Line, finite, number
from penstock.report.data import Kind, Report, Value

__all__ = ["RULES", "View", "capital", "meaning", "metric_name"]

_COLOURS: Final = 8  # classes l0 … l7 of the style sheet

_METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "logloss": ("log loss", "How surprised the learner was by the true labels; sure and wrong costs most."),
    "accuracy": ("accuracy", "Share of events whose label was predicted right."),
    "roc_auc": ("ROC AUC", "Chance that an event of class 1 gets a higher score than one of class 0."),
    "kappa": (
        "Cohen's kappa",
        "Accuracy beyond what guessing with the same frequencies gives; 0 is guessing.",
    ),
    "kappa_temporal": (
        "kappa-temporal",
        "Accuracy beyond what repeating the last label gives; 0 is repeating.",
    ),
    "f1": ("F1", "Balance of finding class 1 and being right when saying so."),
    "brier": ("Brier score", "Mean squared distance of the predicted probability from what happened."),
    "ece": ("calibration error", "How far predicted probabilities are from observed frequencies."),
    "mae": ("mean absolute error", "Mean distance of the prediction from the label, in the label's unit."),
    "rmse": ("RMSE", "Like the mean distance from the label, but large misses weigh more."),
    "reward": ("mean reward", "What a decision earned on average."),
    "total_reward": ("cumulative reward", "What all decisions earned, added up."),
    "regret": ("regret", "How much more the best action of each event would have earned, added up."),
    "r2": ("R²", "Share of the labels' variance that is explained; 0 is as good as their mean."),
}

RULES: Final[Mapping[str, str]] = {
    "majority": "knows only how frequent each label is",
    "mean": "always the mean label so far",
    "no_change": "always the last label again",
}


def metric_name(key: str) -> str:
    """Return what to call a metric in running text."""
    return _METRICS[key][0] if key in _METRICS else key.replace("_", " ")


def meaning(key: str) -> str:
    """Return what a metric says, in one sentence; empty for one that is not known here."""
    return _METRICS[key][1] if key in _METRICS else ""


def capital(sentence: str) -> str:
    """Let `sentence` begin as sentences do."""
    return sentence[:1].upper() + sentence[1:]


class View:
    """A report with the questions answered that several sections ask."""

    def __init__(self, report: Report) -> None:
        self.report = report
        curves, table = report["curves"], report["table"]
        baselines = set(curves["baselines"])
        names = list(dict.fromkeys([*curves["series"], *table]))
        self.learners = [name for name in names if name not in baselines]
        self.baselines = [name for name in names if name in baselines]
        self.names = [*self.learners, *self.baselines]
        self.drawn = [name for name in self.names if curves["series"].get(name)]
        drawn = (metric for name in self.drawn for metric in curves["series"][name])
        final = (metric for row in table.values() for metric in row)
        self.metrics = self._primary_first(dict.fromkeys(drawn))
        self.columns = self._primary_first(dict.fromkeys(final))
        moments = [
            report["events"],
            *curves["events"],
            *(found["event"] for found in report["drifts"]),
            *(promoted["event"] for promoted in report["promotions"]),
            *(mark["event"] for mark in report["marks"]),
        ]
        self.last = max(moments)

    def _primary_first(self, metrics: Mapping[str, None]) -> list[str]:
        return sorted(metrics, key=lambda metric: metric != self.report["primary"])

    def css(self, name: str) -> str:
        """Class of a learner's or a baseline's colour; one that is not known is grey."""
        if name in self.learners:
            i = self.learners.index(name)
            return f"l{i % _COLOURS}" + (" again" if i >= _COLOURS else "")
        return f"b{self.baselines.index(name) % 3 if name in self.baselines else 0}"

    def higher(self, metric: str) -> bool:
        """Whether more is better."""
        return self.report["higher_is_better"].get(metric, False)

    def better(self, metric: str, value: float, than: float) -> bool:
        """Whether `value` is better than `than`, not just as good."""
        return value > than if self.higher(metric) else value < than

    def best(self, names: Sequence[str], metric: str) -> tuple[str, float] | None:
        """Return the best of `names` by final value, the first of equals; None if nobody has one."""
        leader: tuple[str, float] | None = None
        for name in names:
            value = finite(self.report["table"].get(name, {}).get(metric))
            if value is not None and (leader is None or self.better(metric, value, leader[1])):
                leader = (name, value)
        return leader

    def curve(self, name: str, metric: str, kind: Kind) -> Sequence[Value]:
        """Return one curve; empty if there is none."""
        curve = self.report["curves"]["series"][name].get(metric)
        return curve[kind] if curve else []

    def lines(self, metric: str, kind: Kind) -> list[Line]:
        """Return the curves of every learner, then of every baseline."""
        return [
            Line(
                name=name,
                css=self.css(name),
                baseline=name in self.baselines,
                values=self.curve(name, metric, kind),
            )
            for name in self.drawn
        ]

    def start_kind(self, metric: str) -> Kind:
        """Return which curves to show first: windowed ones, which show change, if there are any."""
        values = (v for name in self.drawn for v in self.curve(name, metric, "window"))
        return "window" if any(finite(v) is not None for v in values) else "average"

    def caption(self, metric: str, kind: Kind) -> str:
        """Say in words what a chart shows."""
        window = f"the last {number(self.report['window'])}" if "window" in self.report else "the most recent"
        over = "all events so far" if kind == "average" else f"{window} events"
        direction = "Higher is better." if self.higher(metric) else "Lower is better."
        sentences = (f"{capital(metric_name(metric))} over {over}.", meaning(metric), direction)
        return " ".join(filter(None, sentences))
