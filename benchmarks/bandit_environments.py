"""Which policy earns most: native ones and Vowpal Wabbit's, on multiclass sets turned into bandits.

One pass; each event's class is right or wrong, and only the chosen one is known. All see the same features:
the columns as numbers, the class as a categorical feature, and their crosses (``-q :a``). All have the
defaults of their kind, but where the table says otherwise. Rewards are averaged over all events and several
seeds of the decisions; "late" is the last quarter only.

Run with the directory that holds ``letter.csv.gz`` and ``segment.csv.gz``:
``python -m benchmarks.bandit_environments [--data ../shared/data] [--limit N] [--seeds 3]``.
"""

import argparse
import csv
import gzip
import time
from pathlib import Path

import numpy as np

from penstock.bandits import build
from penstock.bandits.environment import as_bandit, simulate
from penstock.events import Batch

SETS = {"segment": "category", "letter": "target"}
POLICIES = [
    ("uniform", {}),
    ("squarecb", {}),
    ("squarecb", {"gamma_scale": 50.0}),
    ("greedy", {}),
    ("greedy", {"cost_type": "dm"}),
    ("boltzmann", {}),
    ("regcb", {}),
    ("bagging", {}),
    ("bagging", {"cost_type": "dm"}),
    ("cover", {"uniform": False}),
    ("vw", {"args": "--squarecb -q :a"}),
    ("vw", {"args": "--cover 3 -q :a"}),
    ("vw", {"args": "--bag 5 -q :a"}),
    ("vw", {"args": "--epsilon 0.05 -q :a"}),
    ("vw", {"args": "--first 1000 -q :a"}),
]


def load(path: Path, label: str, limit: int | None) -> Batch:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))[:limit]
    labels = [row.pop(label) for row in rows]
    return Batch.from_rows([{name: float(value) for name, value in row.items()} for row in rows], labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    for name, label in SETS.items():
        batch = load(options.data / f"{name}.csv.gz", label, options.limit)
        print(f"\n{name}: {len(batch):,} events, {len(set(batch.labels))} actions")
        print(f"{'policy':<42}{'reward':>8}{'late':>8}{'us/event':>10}")
        for kind, parameters in POLICIES:
            rewards, late, start = [], [], time.perf_counter()
            for seed in range(options.seeds):
                result = simulate(build(kind, seed=seed, **parameters), as_bandit(batch, seed=seed))
                rewards.append(result.average_reward)
                late.append(result.rewards[-len(batch) // 4 :].mean())
            each = (time.perf_counter() - start) / (options.seeds * len(batch)) * 1e6
            shown = " ".join(
                [
                    kind,
                    *(str(value) if key == "args" else f"{key}={value}" for key, value in parameters.items()),
                ]
            )
            print(f"{shown:<42}{np.mean(rewards):>8.4f}{np.mean(late):>8.4f}{each:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
