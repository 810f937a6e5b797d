from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.forgetting import BUFFERS, STREAMS, dumb, forgetting
from benchmarks.forgetting_picture import draw, follow


def test_every_buffer_can_be_measured():
    stream = STREAMS["classes, ImageSegments"](0)
    for rule in BUFFERS.values():
        found = forgetting(stream, rule)
        assert -0.1 <= found.forgotten <= 1.0
        assert 0.0 <= found.known <= 1.0
        assert 0.5 < found.prequential <= 1.0


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


@pytest.mark.parametrize("name", ["recurring concepts", "conflicting concepts"])
def test_what_is_consolidated_is_forgotten_less(name):
    stream = STREAMS[name](0)
    without, with_it = (forgetting(stream, None, consolidation=strength) for strength in (0.0, 3.0))
    assert with_it.forgotten < 0.6 * without.forgotten
    assert with_it.known > without.known
    assert with_it.prequential < without.prequential  # what is held back learns the present more slowly


def test_the_picture_is_a_picture():
    root = ElementTree.fromstring(draw(follow(consolidated=(0.0, 3.0))))
    lines = [line for line in root.iter() if line.tag.endswith("polyline")]
    assert len(lines) == 2 * 9
