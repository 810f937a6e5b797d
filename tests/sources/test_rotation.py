"""Files that change under a source, while it reads or between two runs: nothing is lost without a word."""

import itertools
import json
import os

import pytest

from penstock import bandit_config, runner
from penstock.errors import DataError
from penstock.events import Task
from penstock.feedback import RewardEvent
from penstock.sinks import FileSink
from penstock.sources.feedback import FeedbackSource
from penstock.sources.file import FileSource
from penstock.sources.heads import HEAD_BYTES


def write(path, numbers, mode="a"):
    """Rewards of these numbers, which are their ids and their times."""
    with path.open(mode) as file:
        file.writelines(f'{{"id": "{i}", "time": {i}, "reward": 1}}\n' for i in numbers)


def rotate(path):
    number = next(i for i in itertools.count(1) if not path.with_name(f"{path.name}.{i}").exists())
    return path.rename(path.with_name(f"{path.name}.{number}"))


def follow(directory):
    return FeedbackSource(str(directory), follow=True, poll_s=0.001)


def up_to_waiting(chunks):
    """Return ids up to where the source waits, and the position there."""
    ids = []
    for chunk in chunks:
        ids += [int(event.id) for event in chunk.batch]
        if not chunk.batch and not chunk.rejected:
            return ids, json.loads(json.dumps(chunk.position))
    raise AssertionError("a followed source does not end")


def ids(source, position=None):
    return [int(event.id) for chunk in source.chunks(position, 7) for event in chunk.batch]


def test_rotation_under_a_run(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    chunks = follow(tmp_path).chunks(None, 7)
    assert up_to_waiting(chunks)[0] == list(range(10))
    moved = path.rename(tmp_path / "whatever")
    write(moved, range(10, 15))  # whoever has it open goes on writing there
    assert up_to_waiting(chunks)[0] == list(range(10, 15))
    write(moved, range(15, 20))
    write(path, range(20, 50))
    found, position = up_to_waiting(chunks)
    assert found == list(range(15, 50))
    assert position["rewards"]["line"] == 30
    write(path, range(50, 55))
    assert ids(FeedbackSource(str(tmp_path)), position) == list(range(50, 55))


def test_rotation_between_two_runs(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    _, position = up_to_waiting(follow(tmp_path).chunks(None, 7))
    write(path, range(10, 14))
    rotate(path)
    assert ids(FeedbackSource(str(tmp_path)), position) == list(range(10, 14))  # there is no new one yet
    write(path, range(14, 100))
    assert ids(FeedbackSource(str(tmp_path)), position) == list(range(10, 100))


def test_a_copy_in_the_place_of_the_file_is_read_on(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    chunks = follow(tmp_path).chunks(None, 7)
    up_to_waiting(chunks)
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    write(copy, range(10, 20))
    copy.rename(path)
    found, position = up_to_waiting(chunks)
    assert found == list(range(10, 20))
    assert position["rewards"]["line"] == 20


def test_every_position_leads_through_a_rotation(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    source = follow(tmp_path).chunks(None, 3)
    read = list(itertools.islice(source, 4))
    rotate(path)
    write(path, range(10, 20))
    read += itertools.takewhile(lambda chunk: chunk.batch, source)
    for i, chunk in enumerate(read):
        rest = [int(event.id) for later in read[i + 1 :] for event in later.batch]
        assert ids(FeedbackSource(str(tmp_path)), chunk.position) == rest


def test_a_daemon_learns_the_same_from_a_rotated_log(tmp_path):
    def decisions(directory, numbers):
        (tmp_path / directory).mkdir(exist_ok=True)
        with (tmp_path / directory / "decisions.jsonl").open("a") as file:
            for i in numbers:
                record = {"context": {}, "actions": ["a", "b"], "action": "ab"[i % 2], "propensity": 0.5}
                file.write(json.dumps({"id": str(i), "time": i, **record}) + "\n")

    def run(directory):
        given = {
            "task": "bandit",
            "source": {"kind": "feedback", "path": str(tmp_path / directory)},
            "policies": {"a": {"kind": "ucb1"}},
            "rewards": {"window_s": 1, "lateness_s": 1},
            "checkpoint": {"path": str(tmp_path / f"{directory}.state")},
        }
        return runner.run(bandit_config.parse(given))

    decisions("whole", range(700))
    decisions("rotated", range(300))
    run("rotated")
    decisions("rotated", range(300, 400))
    rotate(tmp_path / "rotated" / "decisions.jsonl")
    decisions("rotated", range(400, 700))
    outcome, expected = run("rotated"), run("whole")
    assert (outcome.events, outcome.digest) == (expected.events, expected.digest)
    decisions("rotated", range(700, 710))
    assert run("rotated").events == expected.events + 10


def test_a_torn_last_line_of_a_rotated_file_is_a_bad_record(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(3))
    chunks = follow(tmp_path).chunks(None, 10)
    up_to_waiting(chunks)
    with path.open("a") as file:
        file.write('{"id": "torn", "ti')
    assert up_to_waiting(chunks)[0] == []
    rotate(path)
    write(path, [3])
    chunk = next(chunks)
    assert [letter.where for letter in chunk.rejected] == ["rewards.jsonl:4"]
    assert chunk.rejected[0].data == b'{"id": "torn", "ti'
    assert [event.id for event in chunk.batch] == ["3"]


def test_a_run_that_is_two_rotations_behind_says_so(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    _, position = up_to_waiting(follow(tmp_path).chunks(None, 10))
    for i in (10, 20):
        os.utime(rotate(path), (i, i))
        write(path, range(i, i + 10))
    with pytest.raises(DataError, match=r"rotated more than once .* rewards.jsonl.2 is newer"):
        ids(FeedbackSource(str(tmp_path)), position)


def test_writing_to_what_was_rotated_and_read_is_an_error(tmp_path):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    chunks = follow(tmp_path).chunks(None, 10)
    up_to_waiting(chunks)
    moved = rotate(path)
    write(path, [10])
    assert up_to_waiting(chunks)[0] == [10]
    write(moved, [11])
    with pytest.raises(DataError, match="has been written to after it was rotated"):
        up_to_waiting(chunks)


@pytest.mark.parametrize("n", [3, 10, 200])
def test_truncation_under_a_run(tmp_path, n):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    chunks = follow(tmp_path).chunks(None, 10)
    up_to_waiting(chunks)
    write(path, range(1000, 1000 + n), mode="w")
    with pytest.raises(DataError, match=r"rewards\.jsonl: was truncated .* \(behind line 10\)"):
        up_to_waiting(chunks)


@pytest.mark.parametrize("n", [10, 200])
def test_a_replaced_file_is_not_resumed_in_its_middle(tmp_path, n):
    path = tmp_path / "rewards.jsonl"
    write(path, range(10))
    *_, last = FeedbackSource(str(tmp_path)).chunks(None, 10)
    write(path, range(1000, 1000 + n), mode="w")
    with pytest.raises(DataError, match=r"begins otherwise; and no rewards\.jsonl\.\* is what was read"):
        ids(FeedbackSource(str(tmp_path)), last.position)
    path.unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        ids(FeedbackSource(str(tmp_path)), last.position)


def test_positions_of_older_versions_still_load(tmp_path):
    write(tmp_path / "rewards.jsonl", range(10))
    *_, last = FeedbackSource(str(tmp_path)).chunks(None, 4)
    old = {"rewards": {"offset": last.position["rewards"]["offset"] // 10 * 4, "line": 4}}
    assert ids(FeedbackSource(str(tmp_path)), old) == [4, 5, 6, 7, 8, 9]
    for wrong in ({"offset": "3"}, {"line": -1}, {"head": "none"}, {"other": 1}):
        with pytest.raises(DataError, match="no position of a file of feedback"):
            ids(FeedbackSource(str(tmp_path)), {"rewards": wrong})


def test_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "rewards.jsonl"
    path.write_text(
        '\n{"id": "1", "time": 1, "reward": 1}\n\n  \r\n{"id": "2", "time": 2, "reward": 1}\nx\n\n'
    )
    [chunk] = FeedbackSource(str(tmp_path)).chunks(None, 10)
    assert [event.id for event in chunk.batch] == ["1", "2"]
    assert [letter.where for letter in chunk.rejected] == ["rewards.jsonl:6"]
    assert chunk.position["rewards"]["line"] == 7
    assert ids(FeedbackSource(str(tmp_path)), chunk.position) == []


def test_sink_goes_on_in_the_new_file(tmp_path):
    path = tmp_path / "rewards.jsonl"
    sink = FileSink(tmp_path)
    chunks = follow(tmp_path).chunks(None, 10)
    found = []
    for i in range(6):
        sink.send(RewardEvent(id=str(i), time=float(i), value=1.0))
        if i == 2:
            found += up_to_waiting(chunks)[0]
            moved = rotate(path)
    sink.close()
    assert [len(part.read_text().splitlines()) for part in (moved, path)] == [3, 3]
    assert found + up_to_waiting(chunks)[0] == list(range(6))


@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet"])
@pytest.mark.parametrize("n", [20, 200])
def test_a_data_file_that_was_replaced_is_not_resumed(tmp_path, name, n):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / name

    def fill(start, n):
        rows = [{"a": start + i, "label": i % 2} for i in range(n)]
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    fill(0, 20)
    source = FileSource(Task("binary"), str(path))
    first = next(source.chunks(None, 5))
    assert len(first.position["head"]) <= len(f"{HEAD_BYTES}-") + 16
    old = {key: value for key, value in first.position.items() if key != "head"}
    assert sum(len(chunk.batch) for chunk in source.chunks(old, 5)) == 15
    fill(1000, n)
    with pytest.raises(DataError, match="not the file that the position was taken from: it begins otherwise"):
        list(source.chunks(first.position, 5))


def test_a_followed_data_file_that_was_written_anew_is_found(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text('{"a": 1, "label": 1}\n')
    chunks = FileSource(Task("binary"), str(path), follow=True, poll_s=0.001).chunks(None, 5)
    assert len(next(chunks).batch) == 1
    path.write_text('{"a": 2, "label": 1}\n' * 5)
    with pytest.raises(DataError, match="was truncated and written anew"):
        [len(chunk.batch) for chunk in itertools.islice(chunks, 10)]
