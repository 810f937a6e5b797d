"""Checkpoints: one file, replaced atomically, refused with advice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock import checkpoints, tensors
from penstock.checkpoints import Checkpoint, load, previous, save
from penstock.errors import StoreError
from penstock.state import Opaque, digest

ROOT = Path(checkpoints.__file__).parents[1]
STATE = {"learner/weights": np.arange(5.0), "tick": 3, "model": Opaque(data=b"a pickle", digest="d")}


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "elec2.checkpoint"


def checkpoint(n=0):
    return Checkpoint(state={**STATE, "n": n}, position={"file": "a.csv", "offset": n}, extra={"bad": [1, n]})


def test_round_trip(path):
    assert load(path, config_hash="c") is None
    save(path, checkpoint(5), config_hash="c")
    found = load(path, config_hash="c")
    assert digest(found.state) == digest(checkpoint(5).state)
    assert (found.position, found.extra) == ({"file": "a.csv", "offset": 5}, {"bad": [1, 5]})
    assert found.state["learner/weights"].flags.writeable
    assert os.listdir(path.parent) == ["elec2.checkpoint"]


def test_the_same_moment_gives_the_same_file(tmp_path):
    assert save(tmp_path / "a", checkpoint(), config_hash="c") == save(
        tmp_path / "b", checkpoint(), config_hash="c"
    )


@pytest.mark.parametrize("links", [True, False])
def test_the_previous_one_is_kept(path, links, monkeypatch):
    if not links:

        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")  # as file systems without links do

        save(path, checkpoint(0), config_hash="c")
        monkeypatch.setattr(os, "link", refuse)
    for n in range(4):
        save(path, checkpoint(n), config_hash="c")
    assert load(path, config_hash="c").state["n"] == 3
    assert load(previous(path), config_hash="c").state["n"] == 2
    assert sorted(os.listdir(path.parent)) == ["elec2.checkpoint", "elec2.checkpoint.previous"]


def test_a_damaged_one_is_refused_with_a_way_out(path):
    save(path, checkpoint(1), config_hash="c")
    flipped = bytearray(path.read_bytes())
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(StoreError) as caught:
        load(path, config_hash="c")
    assert str(caught.value).startswith(f"{path} is damaged: expected SHA-256 ")
    assert "before it" not in str(caught.value)

    path.unlink()
    save(path, checkpoint(1), config_hash="c")
    save(path, checkpoint(2), config_hash="c")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError) as caught:
        load(path, config_hash="c")
    older = f"{path}.previous"
    assert str(caught.value).endswith(
        f"; the checkpoint before it is {older}: move it here to go on from there"
    )
    os.replace(older, path)
    assert load(path, config_hash="c").position["offset"] == 1


def test_one_that_is_gone_is_not_begun_anew(path):
    save(path, checkpoint(1), config_hash="c")
    save(path, checkpoint(2), config_hash="c")
    path.unlink()
    with pytest.raises(StoreError) as caught:
        load(path, config_hash="c")
    assert str(caught.value) == (
        f"there is no checkpoint at {path}, but the one before it is {path}.previous: move it here to go on "
        f"from there, or away to learn from the beginning"
    )
    os.replace(previous(path), path)
    assert load(path, config_hash="c").state["n"] == 1


def test_a_save_repeated_after_a_crash_keeps_the_previous_one_readable(path):
    save(path, checkpoint(0), config_hash="c")
    save(path, checkpoint(1), config_hash="c")
    os.unlink(previous(path))
    os.link(path, previous(path))  # killed after the link was made and before the new file was there
    os.link(path, path.with_name(f".{path.name}.link"))
    save(path, checkpoint(1), config_hash="c")
    assert load(path, config_hash="c").state["n"] == 1
    assert load(previous(path), config_hash="c").state["n"] == 1
    assert sorted(os.listdir(path.parent)) == ["elec2.checkpoint", "elec2.checkpoint.previous"]


def test_another_configuration_is_refused(path):
    save(path, checkpoint(), config_hash="aaaa")
    with pytest.raises(StoreError) as caught:
        load(path, config_hash="bbbb")
    assert str(caught.value) == (
        f"{path} belongs to another configuration (hash aaaa, now bbbb): "
        f"undo the change to go on from there, or move the file away to learn from the beginning"
    )
    save(path, checkpoint(), config_hash="aaaa")
    with pytest.raises(StoreError, match=f"or move it and {path.name}.previous away to learn"):
        load(path, config_hash="bbbb")


def test_a_newer_format_is_refused(path):
    save(path, checkpoint(), config_hash="c")
    state, manifest = tensors.read(path)
    del manifest["sha256"]
    tensors.write(path, state, {**manifest, "format": 2, "created_by": "7.0"})
    with pytest.raises(StoreError) as caught:
        load(path, config_hash="c")
    assert str(caught.value) == (
        f"{path} has format 2, written by Penstock 7.0: this is Penstock {penstock.__version__}, "
        f"which reads up to format 1; upgrade it"
    )


@pytest.mark.parametrize(
    "manifest", [{}, {"format": 1}, {"format": 1, "position": [], "extra": {}}, {"format": "1"}]
)
def test_another_kind_of_file_is_refused(tmp_path, manifest):
    tensors.write(tmp_path / "file", {}, manifest)
    with pytest.raises(StoreError, match="is not a checkpoint: expected a position in its manifest"):
        load(tmp_path / "file", config_hash="c")


def test_opaque_entries_are_signed(path, monkeypatch):
    def trusted(**how):
        return load(path, config_hash="c", **how).state["model"].trusted

    save(path, checkpoint(), config_hash="c")
    assert not trusted()
    assert trusted(trust_pickle=True)
    monkeypatch.setenv("PENSTOCK_KEY", "sesame")
    save(path, checkpoint(), config_hash="c")
    assert trusted()
    monkeypatch.setenv("PENSTOCK_KEY", "simsim")
    assert not trusted()


def test_what_cannot_be_written_is_one_line(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=rf"^cannot write {tmp_path}/file/deeper: [^\n]+$"):
        save(tmp_path / "file" / "deeper", checkpoint(), config_hash="c")
    save(path, checkpoint(1), config_hash="c")
    with pytest.raises(StoreError, match=r"entry 'x' is a builtins\.list"):
        save(path, Checkpoint(state={"x": []}, position={}), config_hash="c")
    assert load(path, config_hash="c").state["n"] == 1


WRITER = """
import sys
import numpy as np
from penstock.checkpoints import Checkpoint, load, save
found = load(sys.argv[1], config_hash="c")
n = 0 if found is None else found.position["n"]
while True:
    n += 1
    save(sys.argv[1], Checkpoint(state={"w": np.full(20_000, n)}, position={"n": n}), config_hash="c")
    print(flush=True)
"""


def test_a_killed_writer_leaves_state_and_position_of_one_moment(path):
    reached = 0
    for n in range(10):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, cwd=ROOT)
        with writer:
            writer.stdout.readline()
            time.sleep(0.0007 * n)  # somewhere in the next save, or the one after
            writer.send_signal(signal.SIGKILL)
        found = load(path, config_hash="c")
        assert found.position["n"] > reached
        reached = found.position["n"]
        for each in (found, load(previous(path), config_hash="c") or found):
            assert set(each.state["w"]) == {each.position["n"]}
