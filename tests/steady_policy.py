"""The smallest policies that a snapshot can hold; what they choose tells which version decides."""

import numpy as np


class Keyed:
    """Its distributions depend on all that a decision may depend on: weights, context, arm and key."""

    def __init__(self, level):
        self.weights = np.full(100, float(level))

    def probabilities(self, offers):
        out = np.empty(len(offers.arms))
        for event, (low, high) in enumerate(zip(offers.starts[:-1], offers.starts[1:], strict=True)):
            # A stream of its own: `draw` uses [key, 0], and what draws must not depend on what is drawn from.
            noise = np.random.Generator(
                np.random.Philox(key=np.array([offers.keys[event], 1], np.uint64))
            ).random(high - low)
            context = offers.contexts.slice(event, event + 1).values.sum()
            arms = [offers.actions.slice(n, n + 1).values.sum() for n in range(low, high)]
            scores = self.weights[0] + noise + np.sin(context) + np.cos(arms)
            out[low:high] = np.exp(scores) / np.exp(scores).sum()
        return out

    def state(self):
        return {"weights": self.weights.copy()}

    @classmethod
    def load(cls, state):
        policy = cls(0.0)
        policy.weights = state["weights"]
        return policy


class Greedy(Keyed):
    """Always takes the action whose number is its level."""

    def probabilities(self, offers):
        return np.eye(len(offers.arms))[int(self.weights[0])]


class Unsound(Keyed):
    """Gives what is no distribution."""

    def probabilities(self, offers):
        return np.full(len(offers.arms) + int(self.weights[0]), 0.3)
