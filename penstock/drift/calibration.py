"""How often a detector rings falsely, and the threshold at which it does so as often as is wanted.

A run length is the number of values from one false alarm to the next, on average over streams of
`HORIZON` run lengths in which nothing changes and the detector starts afresh after each alarm. It depends on
what the stream looks like, so it is stated for a `Series`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from penstock.drift.base import Detector, Domain, Knob
from penstock.errors import ConfigError

__all__ = [
    "HORIZON",
    "SEEDS",
    "Delay",
    "RunLength",
    "Series",
    "Unreachable",
    "calibrated",
    "delay",
    "from_reference",
    "parse_series",
    "run_length",
    "siegmund",
]

Floats: TypeAlias = NDArray[np.float64]
Make: TypeAlias = Callable[[float], Detector]

HORIZON: Final = 10  # run lengths in a stream
_STREAMS: Final = 4  # of a calibration: so many times HORIZON false alarms decide
_CHUNK: Final = 16_384  # values drawn, and shown to a detector, at a time
# Values that a look may take, of a detector of cost 1: longer run lengths are extrapolated to.
_DEAREST: Final = 4_000_000
_LOOKS: Final = 12
_CLOSE: Final = 0.1  # relative error of a run length at which the search ends
_BOLD: Final = 2.0  # the search is no bolder than this, in the logarithm of the run length

SEEDS: Final = {"calibrate": 1, "observe": 2, "delay": 3}


@dataclass(frozen=True, slots=True)
class Series:
    """What a stream looks like while nothing changes.

    Attributes
    ----------
    name : str
        ``bernoulli:0.2``, ``gaussian``, …, or ``own``.
    sample : tuple of float
        Of ``own``: values that were seen. Others are drawn from a distribution.
    block : int
        Of ``own``: values that are drawn together, to keep what they say about each other.
    """

    name: str
    sample: tuple[float, ...] = ()
    block: int = 1

    def draw(self, rng: np.random.Generator, n: int, change: float = 0.0) -> Floats:
        """Draw `n` values, shape (n,); with `change` from a distribution whose mean is so much larger.

        The values of ``own`` are moved by `change`; so are normal ones. Bounded ones stay bounded.
        """
        kind, numbers = _parts(self.name)
        if kind == "own":
            sample = np.array(self.sample)
            starts = rng.integers(0, len(sample) - self.block + 1, -(-n // self.block))
            places = (starts[:, None] + np.arange(self.block)).reshape(-1)[:n]
            return np.ascontiguousarray(sample[places] + change)
        if kind == "bernoulli":
            return (rng.random(n) < numbers[0] + change).astype(np.float64)
        if kind == "beta":
            a, b = numbers
            mean = a / (a + b) + change
            return rng.beta((a + b) * mean, (a + b) * (1.0 - mean), n)
        if kind == "uniform":
            return np.clip(rng.random(n) + change, 0.0, 1.0)
        return rng.normal(change, 1.0, n)

    def parts(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Draw without end, some at a time."""
        while True:
            yield self.draw(rng, _CHUNK)

    @property
    def mean(self) -> float:
        """Of its values."""
        kind, numbers = _parts(self.name)
        if kind == "own":
            return float(np.mean(self.sample))
        if kind == "beta":
            return numbers[0] / sum(numbers)
        return {"bernoulli": numbers[0] if numbers else 0.0, "uniform": 0.5}.get(kind, 0.0)

    def suits(self, domain: Domain) -> bool:
        """Whether a detector of `domain` can take its values."""
        kind, _ = _parts(self.name)
        if domain == "bits":
            return kind == "bernoulli"
        return domain == "numbers" or kind in ("bernoulli", "beta", "uniform")

    def holds(self, change: float) -> bool:
        """Whether there is such a series whose mean is larger by `change`."""
        kind, numbers = _parts(self.name)
        if kind == "bernoulli":
            return 0.0 <= numbers[0] + change <= 1.0
        return kind != "beta" or 0.0 < numbers[0] / sum(numbers) + change < 1.0


def _parts(name: str) -> tuple[str, tuple[float, ...]]:
    kind, _, rest = name.partition(":")
    return kind, tuple(float(number) for number in rest.split(",") if number)


def parse_series(text: str) -> Series:
    """Read ``bernoulli:P``, ``beta:A,B``, ``uniform`` or ``gaussian``.

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> parse_series("bernoulli:0.2")
    Series(name='bernoulli:0.2', sample=(), block=1)
    """
    try:
        kind, numbers = _parts(text)
    except ValueError:
        kind, numbers = "", ()
    accepted = {
        "bernoulli": len(numbers) == 1 and 0 < min(numbers) < 1,
        "beta": len(numbers) == 2 and min(numbers) > 0 and max(numbers) < 1e6,
        "uniform": not numbers,
        "gaussian": not numbers,
    }
    if not accepted.get(kind, False):
        raise ConfigError(
            f"series: expected 'bernoulli:P' with P in (0, 1), 'beta:A,B', 'uniform' or 'gaussian', "
            f"got {text!r}"
        )
    return Series(text)


def from_reference(values: Floats) -> Series:
    """Return the series that a stretch of the stream itself stands for.

    Values that tell nothing about later ones are drawn one by one. Otherwise they are drawn in blocks of ten
    times the lag up to which they do: blocks keep dependence that is shorter than they are.
    """
    n = len(values)
    off = values - values.mean()
    power = float(off @ off)
    block = 1
    if power > 0.0:
        lags = range(1, min(100, n // 4))
        correlations = np.array([float(off[lag:] @ off[:-lag]) for lag in lags]) / power
        # Chance alone takes the largest of a hundred beyond four standard errors once in 150 streams.
        telling = np.flatnonzero(np.abs(correlations) > 4.0 / math.sqrt(n))
        if len(telling):
            block = min(10 * (int(telling[-1]) + 1), n // 10)
    return Series("own", tuple(values.tolist()), block)


class Unreachable(ConfigError):
    """A run length that no threshold gives.

    Attributes
    ----------
    nearest : float
        What comes nearest.
    """

    def __init__(self, nearest: float, message: str) -> None:
        self.nearest: Final = nearest
        super().__init__(message)


# --- observing --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunLength:
    """False alarms that were counted.

    Attributes
    ----------
    alarms, events : int
    """

    alarms: int
    events: int

    @property
    def mean(self) -> float:
        """Values for each alarm; infinite where there was none."""
        return self.events / self.alarms if self.alarms else math.inf

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Limits on the run length, exact where alarms come independently (Garwood 1936).

        Examples
        --------
        >>> low, high = RunLength(alarms=40, events=4_000_000).interval()
        >>> round(low), round(high)
        (73437, 139975)
        """
        tail = (1.0 - level) / 2.0
        most = float(stats.gamma.ppf(1.0 - tail, self.alarms + 1))
        least = float(stats.gamma.ppf(tail, self.alarms)) if self.alarms else 0.0
        return self.events / most, self.events / least if least else math.inf


def run_length(
    detector: Detector, parts: Iterator[Floats], events: int, *, most_alarms: float = math.inf
) -> RunLength:
    """Count the alarms of a fresh detector on `events` values, which come in `parts`.

    It starts afresh after each alarm, and stops early after `most_alarms`.
    """
    alarms = seen = 0
    for part in parts:
        values = part[: events - seen]
        start = 0
        while start < len(values):
            found = detector.update(values[start:])
            if found is None:
                break
            start += found.index + 1
            alarms += 1
            if alarms >= most_alarms:
                return RunLength(alarms, seen + start)
            detector.reset()
        seen += len(values)
        if seen == events:
            break
    return RunLength(alarms, seen)


@dataclass(frozen=True, slots=True)
class Delay:
    """How long it took to see a change.

    Attributes
    ----------
    median : float
        Values from the change to the alarm; infinite where fewer than half were seen.
    found : float
        Share of the changes that were seen within `limit`.
    limit : int
    """

    median: float
    found: float
    limit: int


def delay(
    make: Callable[[], Detector],
    series: Series,
    change: float,
    *,
    before: int = 2000,
    limit: int = 10_000,
    runs: int = 100,
) -> Delay:
    """Show `runs` fresh detectors a change of the mean after `before` values; wait for `limit` at most.

    A detector that rings before the change starts afresh.
    """
    rng = np.random.default_rng(SEEDS["delay"])
    delays = []
    for _ in range(runs):
        detector = make()
        calm = series.draw(rng, before)
        run_length(detector, iter([calm]), before)
        waited, found = 0, None
        while found is None and waited < limit:
            size = min(max(waited, 256), limit - waited)  # most changes are seen soon
            found = detector.update(series.draw(rng, size, change))
            waited += size if found is None else found.index + 1
        delays.append(waited if found is not None else math.inf)
    return Delay(median=float(np.median(delays)), found=sum(map(math.isfinite, delays)) / runs, limit=limit)


# --- calibrating ------------------------------------------------------------------------------------------


def siegmund(threshold: float, slack: float, *, two_sided: bool = True) -> float:
    """Run length of a CUSUM of independent standard normal values (Siegmund 1985).

    Examples
    --------
    >>> round(siegmund(5.0, 0.5, two_sided=False), -1)
    940.0
    """
    b = threshold + 1.166
    one_sided = (
        b * b if slack == 0.0 else (math.expm1(2.0 * slack * b) - 2.0 * slack * b) / (2.0 * slack * slack)
    )
    return one_sided / 2.0 if two_sided else one_sided


class _Stretches:
    """Streams of a series, drawn when first asked for: every look at a threshold sees the same values."""

    def __init__(self, series: Series, length: int) -> None:
        self._series = series
        self._length = length
        self._rngs = [np.random.default_rng([SEEDS["calibrate"], i]) for i in range(_STREAMS)]
        self._parts: list[list[Floats]] = [[] for _ in range(_STREAMS)]

    def look(self, make: Callable[[], Detector]) -> RunLength:
        """Count false alarms; often enough is often enough."""
        alarms = events = 0
        for i in range(_STREAMS):
            counted = run_length(
                make(), self._stream(i), self._length, most_alarms=3 * _STREAMS * HORIZON - alarms
            )
            alarms += counted.alarms
            events += counted.events
            if alarms >= 3 * _STREAMS * HORIZON:
                break
        return RunLength(alarms, events)

    def _stream(self, i: int) -> Iterator[Floats]:
        yield from self._parts[i]
        for part in self._series.parts(self._rngs[i]):
            self._parts[i].append(part)
            yield part


def calibrated(make: Make, knob: Knob, every: int, series: Series) -> float:
    """Find the value of a detector's knob at which it rings falsely once in `every` values of `series`.

    Parameters
    ----------
    make : function of the knob's value
        Builds the detector.
    knob : Knob
    every : int
        The run length wanted.
    series : Series

    Returns
    -------
    float
        Found by simulation with fixed seeds: the same in every process. Run lengths that would take too many
        values to observe are extrapolated to, from two shorter ones.

    Raises
    ------
    Unreachable
        If no value of the knob is quiet enough, or loud enough; it holds the nearest.

    Examples
    --------
    >>> from penstock.drift.cusum import CUSUM
    >>> found = calibrated(
    ...     lambda value: CUSUM(threshold=value, mean=0, sd=1),
    ...     CUSUM.knob, 1000, parse_series("gaussian")
    ... )
    >>> siegmund(found, 0.25) / 1000 > 0.75
    True
    """
    observable = _DEAREST // knob.cost // (_STREAMS * HORIZON)
    start = _to_scale(knob, knob.start)
    if every <= observable:
        return _from_scale(knob, _search(make, knob, every, series, start))
    near = _search(make, knob, observable // 8, series, start)
    far = _search(make, knob, observable, series, near)
    value = _from_scale(knob, far + (far - near) * math.log(every / observable) / math.log(8.0))
    return min(max(value, min(knob.loud, knob.quiet)), max(knob.loud, knob.quiet))


def _search(make: Make, knob: Knob, every: int, series: Series, place: float) -> float:
    """Find where on the knob's scale the run length is `every`; look at `place` first."""
    stretches = _Stretches(series, HORIZON * every)
    wanted = math.log(every)
    loud, quiet = _to_scale(knob, knob.loud), _to_scale(knob, knob.quiet)
    sign = 1.0 if quiet > loud else -1.0
    seen: list[tuple[float, float]] = []  # place on the scale, logarithm of the run length; loudest first
    for _ in range(_LOOKS):
        counted = stretches.look(functools.partial(make, _from_scale(knob, place)))
        length = math.log(counted.events / max(counted.alarms, 0.5))
        if abs(length - wanted) < _CLOSE:
            return place
        seen.append((place, length))
        seen.sort(key=lambda one: one[0] * sign)
        louder = [one for one in seen if one[1] < wanted]
        quieter = [one for one in seen if one[1] >= wanted]
        if louder and quieter:
            (p, f), (q, g) = louder[-1], quieter[0]
            if sum(other == length for _, other in seen) > 1:
                break  # on a lattice nothing lies between two places that give the same alarms
            share = (wanted - f) / (g - f) if g > f else 0.5
            place = p + (q - p) * min(max(share, 0.1), 0.9)
        elif louder:
            place = _onwards(louder, wanted, sign, quiet)
        else:
            place = _onwards(quieter, wanted, sign, loud)
        if place in (p for p, _ in seen):
            break
    place, length = min(seen, key=lambda one: abs(one[1] - wanted))
    if abs(length - wanted) > math.log(3.0):
        raise Unreachable(
            _from_scale(knob, place),
            f"no {knob.name} rings once in {every:,} values of {series.name}: "
            f"the nearest, {_from_scale(knob, place):.4g}, rings once in {math.exp(length):,.0f}",
        )
    return place


def _onwards(seen: Sequence[tuple[float, float]], wanted: float, sign: float, bound: float) -> float:
    """Where to look next when all looks fell on one side of what is wanted: beyond the nearest of them."""
    towards_quiet = seen[0][1] < wanted
    (near, f), *others = reversed(seen) if towards_quiet else iter(seen)
    direction = sign if towards_quiet else -sign
    step = 0.15 * max(abs(near), 0.1)
    if others:
        (far, g), *_ = others
        last = abs(near - far)
        gained = abs(f - g)
        step = last * min(abs(wanted - f), _BOLD) / gained if gained > 0.0 else 2.0 * last
        step = min(max(step, 0.1 * last), 4.0 * last)
    limit = abs(bound - near)
    return near + direction * min(step, limit)


def _to_scale(knob: Knob, value: float) -> float:
    return math.log(value) if knob.scale == "log" else value


def _from_scale(knob: Knob, place: float) -> float:
    return math.exp(place) if knob.scale == "log" else place
