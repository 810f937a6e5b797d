import pytest

from benchmarks import drift as benchmark


@pytest.mark.statistics
@pytest.mark.parametrize("every", [5000, 50_000])
def test_every_detector_rings_falsely_as_often_as_was_asked(every):
    table = benchmark.rows(every, runs=50, streams=8)
    print(benchmark.markdown(table, every))
    assert len(table) >= 14
    for row in table:
        assert row.observed is not None, row.kind
        assert every / 2 <= row.observed.mean <= every * 2, row


@pytest.mark.statistics
def test_a_change_of_the_variance_alone_is_seen():
    """By KSWIN, and by the sums, which grow faster in both directions with the noise."""
    table = benchmark.rows(5000, runs=50)
    seen = {row.kind: row.delays["variance only"][1] for row in table if row.series == "gaussian"}
    assert min(seen.values()) >= 0.5, seen


@pytest.mark.statistics
def test_input_detectors_ring_falsely_as_often_as_was_asked_and_see_changes():
    table = benchmark.input_rows(5000, runs=20, streams=8)
    print(benchmark.inputs_markdown(table, 5000))
    for row in table:
        assert 5000 / 2 <= row.observed.mean <= 5000 * 2, row
        for change in ("moved by 0.5 deviations", "shares", "all moved by 0.2"):
            assert row.delays[change][1] >= 0.8, (row.detector, change)
