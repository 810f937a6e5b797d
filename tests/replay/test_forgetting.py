import numpy as np
import pytest

from benchmarks.forgetting import BUFFERS, STREAMS, dumb, forgetting


def test_every_buffer_can_be_measured():
    stream = STREAMS["classes, ImageSegments"](0)
    for rule in BUFFERS.values():
        lost, accuracy = forgetting(stream, rule)
        assert -0.1 <= lost <= 1.0
        assert 0.0 <= accuracy <= 1.0


@pytest.mark.statistics
@pytest.mark.parametrize("name", ["classes, generated", "classes, ImageSegments", "recurring concepts"])
def test_a_balanced_buffer_halves_what_is_forgotten(name):
    streams = [STREAMS[name](seed) for seed in range(4)]
    without, with_it, reference = (
        np.mean([run(stream, seed)[0] for seed, stream in enumerate(streams)])
        for run in (
            lambda stream, seed: forgetting(stream, None, seed),
            lambda stream, seed: forgetting(stream, BUFFERS["balanced"], seed),
            dumb,
        )
    )
    assert without > 0.1
    assert with_it < 0.5 * without
    assert reference < without
