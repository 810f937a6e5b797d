"""Ten million decisions through a bounded window: how fast, and whether memory stays flat.

``python -m benchmarks.joiner`` runs for some minutes; ``--decisions 200000`` gives a first impression.
Decisions come one a millisecond; 30 % are rewarded, after an exponential delay of 10 s on the average; every
event arrives up to a second late, and one in a hundred twice. The window is a minute, so 61,000 decisions
wait at any time. The floor is to make the events and throw them away.
"""

from __future__ import annotations

import argparse
import heapq
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from penstock.feedback import DecisionEvent, RewardEvent
from penstock.joiner import Joiner
from penstock.state import State, digest

_BLOCK: Final = 10_000  # decisions made at once
_PERIOD_S: Final = 0.001
_DELAY_S: Final = 10.0
_LATENESS_S: Final = 1.0
_WINDOW_S: Final = 60.0
_ACTIONS: Final = tuple(f"action-{n}" for n in range(10))


def stream(n_decisions: int, seed: int = 0) -> Iterator[list[DecisionEvent | RewardEvent]]:
    """Make the events in their order of arrival, a block at a time."""
    rng = np.random.default_rng(seed)
    on_the_way: list[tuple[float, int, DecisionEvent | RewardEvent]] = []
    number = 0
    for start in range(0, n_decisions, _BLOCK):
        size = min(_BLOCK, n_decisions - start)
        columns = np.column_stack(
            (
                rng.random(size) < 0.3,
                rng.exponential(_DELAY_S, size),
                _LATENESS_S * rng.random((size, 2)),
                rng.random(size) < 0.01,
            )
        )
        for n, (rewarded, delay, *late, twice) in enumerate(columns.tolist(), start):
            made = _PERIOD_S * n
            decision = DecisionEvent(
                id=f"d{n}", time=made, context={"hour": n % 24}, actions=_ACTIONS, chosen=0, propensity=0.1
            )
            events: list[tuple[float, DecisionEvent | RewardEvent]] = [(made + late[0], decision)]
            if rewarded:
                reward = RewardEvent(id=f"d{n}", time=made + delay, value=1.0, reward_id="click")
                events.append((made + delay + late[1], reward))
            for arrival, event in events * (2 if twice else 1):
                number += 1
                heapq.heappush(on_the_way, (arrival, number, event))
        now = _PERIOD_S * (start + size)
        block = []
        while on_the_way and on_the_way[0][0] < now:
            block.append(heapq.heappop(on_the_way)[2])
        yield block
    yield [heapq.heappop(on_the_way)[2] for _ in range(len(on_the_way))]


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.joiner", description=__doc__)
    parser.add_argument("--decisions", type=int, default=10_000_000)
    n_decisions = parser.parse_args().decisions

    joiner = Joiner(window_s=_WINDOW_S, lateness_s=_LATENESS_S, max_pending=100_000)
    joining, packing, memory, emitted, last = 0.0, 0.0, [], 0, -1.0
    state: State = {}
    began = time.perf_counter()
    with tqdm(total=n_decisions, unit=" decisions", disable=None, leave=False) as bar:
        for events in stream(n_decisions):
            start = time.perf_counter()
            joined = joiner.take(events)
            joining += time.perf_counter() - start
            for decision in joined.decisions:
                assert decision.time > last, "not in decision order"
                last = decision.time
            emitted += len(joined)
            memory.append(resident_mb())
            if len(memory) == n_decisions // _BLOCK:
                start = time.perf_counter()
                state = joiner.state()
                packing = time.perf_counter() - start
            bar.update(_BLOCK)
    whole = time.perf_counter() - began - packing
    emitted += len(joiner.flush())
    counts = joiner.counts
    assert emitted == n_decisions == counts["emitted"], counts
    tenths = [memory[int(k * (len(memory) - 1) / 10)] for k in range(1, 11)]
    sys.stdout.write(
        f"{n_decisions:,} decisions and {counts['rewards']:,} rewards joined in {joining:.1f} s: "
        f"{n_decisions / joining:,.0f} decisions/s, {1e6 * joining / sum_of_events(counts):.2f} us an event "
        f"(making and checking them: {whole - joining:.1f} s)\n"
        f"resident memory at each tenth of the way, MB: {' '.join(f'{mb:.0f}' for mb in tenths)}\n"
        f"state in the middle of a window: {sum_of_bytes(state) / 1e6:.1f} MB in {packing:.2f} s, "
        f"digest {digest(state)[:16]}\n"
        f"{', '.join(f'{name} {n:,}' for name, n in counts.items() if n)}\n"
    )


def sum_of_events(counts: dict[str, int]) -> int:
    """How many events were taken."""
    return counts["decisions"] + counts["rewards"]


def sum_of_bytes(state: State) -> int:
    """Size of the arrays of a state."""
    return sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))


if __name__ == "__main__":
    main()
