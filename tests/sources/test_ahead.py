"""Reading ahead changes when things are made, and nothing else."""

import threading

import pytest

from penstock.sources.ahead import read_ahead


def n_threads():
    return sum(thread.name == "read-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_everything_comes_in_order(n, depth):
    assert list(read_ahead(iter(range(n)), depth)) == list(range(n))
    assert n_threads() == 0


def test_an_error_comes_behind_what_came_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("the third")

    taken = []
    with pytest.raises(ValueError, match="the third"):  # noqa: PT012  (the items before it are the point)
        for item in read_ahead(items()):
            taken.append(item)
    assert taken == [1, 2]
    assert n_threads() == 0


def test_no_more_is_made_than_fits():
    made = []
    gate = threading.Event()

    def items():
        for i in range(100):
            made.append(i)
            if i == 3:
                gate.set()
            yield i

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 0
    assert next(ahead) == 1
    assert gate.wait(10)
    ahead.close()
    assert len(made) <= 5


def test_whoever_stops_early_leaves_no_thread_and_no_open_file():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    for item in read_ahead(items()):
        if item == 3:
            break
    assert closed == ["read-ahead"]
    assert n_threads() == 0
