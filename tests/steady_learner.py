"""The smallest learners that a snapshot can hold; what they predict tells which version answers."""

import pickle

import numpy as np

from penstock.errors import UntrustedState
from penstock.state import Opaque


class Steady:
    """Its weights all equal one level, so that a mixture of two snapshots cannot go unnoticed."""

    def __init__(self, level, size=1000, n_classes=None):
        self.weights = np.full(size, float(level))
        self.n_classes = n_classes

    def predict_one(self, row):
        if "spell" in row:
            raise TypeError("this model takes no spells")
        low, high = self.weights.min(), self.weights.max()
        if low != high:
            raise AssertionError(f"torn: {low} and {high}")
        if self.n_classes is not None:
            return np.full(self.n_classes, low)
        return float(low)

    def predict(self, batch):
        return np.array([self.predict_one(row) for row in batch.rows])

    def state(self):
        return {"weights": self.weights.copy(), "n_classes": self.n_classes}

    @staticmethod
    def load(state):
        model = Steady(0.0, size=0, n_classes=state["n_classes"])
        model.weights = state["weights"]
        return model


class Pickled(Steady):
    """Keeps its level in a pickle whose bytes are never the same twice."""

    n_pickled = 0

    def __init__(self, level):
        super().__init__(level)

    def state(self):
        Pickled.n_pickled += 1
        data = pickle.dumps((float(self.weights[0]), Pickled.n_pickled))
        return {"model": Opaque(data=data, digest=f"level {self.weights[0]}")}

    @staticmethod
    def load(state):
        if not state["model"].trusted:
            raise UntrustedState("it holds a pickle that is not signed with the key in PENSTOCK_KEY")
        return Pickled(pickle.loads(state["model"].data)[0])
