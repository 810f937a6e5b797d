"""The file layout: exact round trips, the peer's reader, and nothing but `StoreError` from bad bytes."""

import hashlib
import json
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from penstock import tensors
from penstock.errors import StoreError
from penstock.state import Opaque, digest

DTYPES = ["?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"]
HASH_AT = len(b"\0" * 8 + b'{"__metadata__":{"sha256":"')

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda n: n != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
opaques = st.builds(lambda data: Opaque(data=data, digest=hashlib.sha256(data).hexdigest()), st.binary())
states = st.dictionaries(names, st.one_of(arrays, scalars, opaques), max_size=6)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
manifests = st.dictionaries(st.text().filter(lambda n: n != "sha256"), json_values, max_size=3)

STATE = {
    "weights": np.arange(6, dtype=np.float64).reshape(2, 3),
    "flags": np.array([True, False, True]),
    "nothing": np.empty((3, 0), np.int16),
    "count": np.array(7, dtype=np.uint32),
    "rate": 0.1,
    "model": Opaque(data=b"a pickle, say", digest="d" * 64),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors") / "state"


def seal(header: bytes, data: bytes) -> bytes:
    """A file whose hash is right, whatever stands in its header."""
    header += b" " * (-(8 + len(header)) % 64)
    content = bytearray(len(header).to_bytes(8, "little") + header + data)
    content[HASH_AT : HASH_AT + 64] = b"0" * 64
    content[HASH_AT : HASH_AT + 64] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def build(entries=None, data=b"", **metadata) -> bytes:
    base = {"sha256": "0" * 64, "layout": "1", "manifest": "{}", "opaque": "{}", "scalars": "{}"}
    return seal(
        json.dumps({"__metadata__": {**base, **metadata}, **(entries or {})}, separators=(",", ":")).encode(),
        data,
    )


def refused(path, content: bytes) -> str:
    path.write_bytes(content)
    messages = set()
    for mapped in (False, True):
        with pytest.raises(StoreError) as caught:
            tensors.read(path, mmap=mapped)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        messages.add(str(caught.value))
    assert len(messages) == 1
    return messages.pop()


@settings(max_examples=150)
@given(state=states, manifest=manifests, mapped=st.booleans())
def test_round_trip_is_exact(scratch, state, manifest, mapped):
    sha256 = tensors.write(scratch, state, manifest)
    found, found_manifest = tensors.read(scratch, mmap=mapped)
    assert found_manifest == {**manifest, "sha256": sha256}
    assert tensors.read_manifest(scratch) == found_manifest
    assert found.keys() == state.keys()
    assert digest(found) == digest(state)
    for name, value in state.items():
        got = found[name]
        if isinstance(value, np.ndarray):
            assert (got.dtype, got.shape) == (value.dtype, value.shape)
            assert got.tobytes() == value.tobytes()
            assert got.flags.aligned
            assert got.flags.writeable is not mapped
        elif isinstance(value, Opaque):
            assert (got.data, got.digest, got.trusted) == (value.data, value.digest, False)
        else:
            assert type(got) is type(value)
            assert repr(got) == repr(value)  # which tells -0.0 from 0.0, and NaN is NaN


@settings(max_examples=50)
@given(state=states)
def test_the_safetensors_library_reads_the_same_arrays(scratch, state):
    tensors.write(scratch, state, {})
    theirs = load_file(scratch)
    ours = {
        name: np.frombuffer(value.data, np.uint8) if isinstance(value, Opaque) else value
        for name, value in state.items()
        if isinstance(value, np.ndarray | Opaque)
    }
    assert theirs.keys() == ours.keys()
    for name, array in ours.items():
        assert (theirs[name].dtype, theirs[name].shape) == (array.dtype, array.shape)
        assert theirs[name].tobytes() == array.tobytes()


def test_layout_is_what_the_module_says(tmp_path):
    path = tmp_path / "state"
    sha256 = tensors.write(path, STATE, {"name": "elec2"})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert (8 + length) % 64 == 0
    zeroed = content.replace(sha256.encode(), b"0" * 64)
    assert hashlib.sha256(zeroed).hexdigest() == header["__metadata__"]["sha256"] == sha256
    # Widest first, then by name: every array is aligned to its items.
    assert [name for name in header if name != "__metadata__"] == [
        "weights",
        "count",
        "nothing",
        "flags",
        "model",
    ]
    assert json.loads(header["__metadata__"]["manifest"]) == {"name": "elec2"}
    assert json.loads(header["__metadata__"]["scalars"]) == {"rate": 0.1}


def test_the_order_of_names_does_not_matter(tmp_path):
    first = tensors.write(tmp_path / "a", STATE, {"x": 1, "y": 2})
    second = tensors.write(tmp_path / "b", dict(reversed(STATE.items())), {"y": 2, "x": 1})
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_strided_arrays_are_written_by_value(tmp_path):
    whole = np.arange(12.0).reshape(3, 4)
    tensors.write(tmp_path / "s", {"columns": whole[:, ::2], "turned": whole.T}, {})
    found, _ = tensors.read(tmp_path / "s")
    np.testing.assert_array_equal(found["columns"], whole[:, ::2])
    np.testing.assert_array_equal(found["turned"], whole.T)


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    path = tmp_path / "state"
    tensors.write(path, STATE, {"name": "elec2"}, key=b"key")
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in (0, 5):  # bit 5 makes a capital of a letter: the hash is compared exactly
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            refused(path, bytes(flipped))


def test_every_other_length_is_found(tmp_path):
    path = tmp_path / "state"
    tensors.write(path, STATE, {})
    content = path.read_bytes()
    for length in range(len(content)):
        refused(path, content[:length])
    for tail in (b"\0", b"x" * 64, content):
        refused(path, content + tail)


def test_a_wrong_hash_says_what_was_expected(tmp_path):
    path = tmp_path / "state"
    sha256 = tensors.write(path, {"a": np.zeros(1)}, {})
    content = path.read_bytes()
    message = refused(path, content[:-1] + b"\x01")
    assert message.startswith(f"{path} is damaged: expected SHA-256 {sha256}, got ")
    assert message.endswith(f" over its {len(content)} bytes")


@settings(max_examples=200)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(scratch, content):
    refused(scratch, content)


@settings(max_examples=200)
@given(header=st.binary(max_size=200), data=st.binary(max_size=64))
def test_arbitrary_headers_under_a_right_hash_are_refused(scratch, header, data):
    refused(scratch, seal(b'{"__metadata__":{"sha256":"' + b"0" * 64 + header, data))


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_headers_under_a_right_hash_are_refused_or_harmless(scratch, data):
    """A forger can make the hash right, but neither crash the reader nor make it read out of bounds."""
    tensors.write(scratch, STATE, {"name": "elec2"})
    content = scratch.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, body = bytearray(content[8 : 8 + length]), content[8 + length :]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(91, len(header)))
        stop = data.draw(st.integers(start, min(start + 8, len(header))))
        header[start:stop] = data.draw(
            st.one_of(st.binary(max_size=8), st.from_regex(rb"-?[0-9\[\]{},:\"]{0,8}"))
        )
    scratch.write_bytes(seal(bytes(header), body))
    try:
        state, _ = tensors.read(scratch)
    except StoreError:
        return
    assert sum(v.nbytes for v in state.values() if isinstance(v, np.ndarray)) <= len(body)


def entry(dtype="F64", shape=(1,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (build({"a": entry()}, b"\0" * 16), "expected 8 bytes of data, got 16"),
        (build({"a": entry()}, b""), "expected 8 bytes of data, got 0"),
        (
            build({"a": entry(offsets=(8, 16))}, b"\0" * 16),
            "expected data_offsets [0, 8], aligned to an item, at 'a'",
        ),
        (
            build({"a": entry(), "b": entry()}, b"\0" * 16),
            "expected data_offsets [8, 16], aligned to an item, at 'b'",
        ),
        (
            build({"a": entry(shape=(2,))}, b"\0" * 8),
            "expected data_offsets [0, 16], aligned to an item, at 'a'",
        ),
        (
            build({"a": entry("U8", (1,), (0, 1)), "b": entry(offsets=(1, 9))}, b"\0" * 9),
            "expected data_offsets [1, 9]",
        ),
        (build({"a": entry("BF16")}, b"\0" * 8), "expected the dtype of 'a' to be one of BOOL, U8"),
        (build({"a": entry(dtype=["F64"])}, b"\0" * 8), "expected the dtype of 'a' to be one of BOOL, U8"),
        (build({"a": entry(shape=(-1,))}, b"\0" * 8), "expected whole numbers in the shape of 'a'"),
        (build({"a": entry(shape=(1.0,))}, b"\0" * 8), "expected whole numbers in the shape of 'a'"),
        (build({"a": entry(shape=(True,))}, b"\0" * 8), "expected whole numbers in the shape of 'a'"),
        (
            build({"a": entry(shape=(2**61 + 1,))}, b"\0" * 8),
            "expected an array that fits into memory at 'a'",
        ),
        (
            build({"a": entry(shape=(2**33, 2**33))}, b"\0" * 8),
            "expected an array that fits into memory at 'a'",
        ),
        (
            build({"a": entry(shape=(0, 2**40, 2**40), offsets=(0, 0))}),
            "expected an array that fits into memory at 'a'",
        ),
        (
            build({"a": entry(shape=(1,) * 33)}, b"\0" * 8),
            "expected the shape of 'a' to have at most 32 dimensions",
        ),
        (build({"a": {**entry(), "more": 1}}, b"\0" * 8), "expected dtype, shape and data_offsets at 'a'"),
        (build({"a": [1]}), "expected dtype, shape and data_offsets at 'a'"),
        (build({"a": entry("BOOL", (1,), (0, 1))}, b"\2"), "expected bytes 0 and 1 in the booleans of 'a'"),
        (
            build(scalars='{"a": 1}', entries={"a": entry()}, data=b"\0" * 8),
            "expected a scalar of its own at 'a'",
        ),
        (build(scalars='{"a": [1]}'), "expected a scalar of its own at 'a'"),
        (build(scalars='{"a": 1, "a": 2}'), "expected JSON in `scalars`: a name occurs twice"),
        (build(scalars="[" * 100_000), "expected JSON in `scalars`: "),
        (build(scalars='{"a": 1' + "0" * 5000 + "}"), "expected JSON in `scalars`: "),
        (build(manifest="[]"), "expected `manifest` to be a JSON object"),
        (build(opaque='{"a": {"digest": "", "hmac": null}}'), "expected the bytes of the opaque entry 'a'"),
        (
            build({"a": entry("U8", (1,), (0, 1))}, b"x", opaque='{"a": {"digest": "", "hmac": "é"}}'),
            "expected a text and 64 hex digits for the opaque entry 'a'",
        ),
        (
            build({"a": entry("U8", (1,), (0, 1))}, b"x", opaque='{"a": {}}'),
            "expected digest and hmac for the opaque",
        ),
        (build(layout="2"), "expected layout 1, got 2"),
        (
            build(surprise="1"),
            "expected ['layout', 'manifest', 'opaque', 'scalars', 'sha256'] in `__metadata__`",
        ),
        (build(manifest=1), "expected strings in `__metadata__`"),
        (seal(b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'"}', b""), "expected JSON in the header"),
        (
            seal(b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'"}}\xff', b""),
            "expected JSON in the header: 'utf-8'",
        ),
        (b"", "expected at least 99 bytes, got 0"),
        (b"\0" * 200, 'expected a header that starts with {"__metadata__":{"sha256":"'),
        (
            (1 << 63).to_bytes(8, "little") + build()[8:],
            f"expected a header of at most {len(build()) - 8} bytes, got {1 << 63}",
        ),
        ((57).to_bytes(8, "little") + build()[8:], "bytes, got 57"),
        ((121).to_bytes(8, "little") + build()[8:], "expected data at a multiple of 64, got 129"),
    ],
)
def test_malformed_files_are_named_and_explained(tmp_path, content, expected):
    message = refused(tmp_path / "bad", content)
    assert message.startswith(f"{tmp_path / 'bad'} is damaged: ")
    assert expected in message


def test_a_header_is_bounded_even_in_a_huge_file(tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(((64 << 20) + 56).to_bytes(8, "little") + b'{"__metadata__":{"sha256":"')
    os.truncate(path, 1 << 30)
    with pytest.raises(StoreError, match="expected a header of at most 67108864 bytes"):
        tensors.read_manifest(path)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"x": np.array(["a"], dtype=object)}, "entry 'x' has dtype '|O': expected one of |b1, "),
        ({"x": np.zeros(2, ">f8")}, "entry 'x' has dtype '>f8'"),
        ({"x": np.zeros(2, complex)}, "entry 'x' has dtype '<c16'"),
        ({"x": np.float64(1)}, "entry 'x' is a numpy.float64: expected an array, bool, "),
        ({"x": [1]}, "entry 'x' is a builtins.list"),
        ({"__metadata__": 1}, "'__metadata__' cannot be the name of an entry"),
        ({"\ud800": 1}, "'\\ud800' cannot be the name of an entry"),
        ({3: 1}, "3 cannot be the name of an entry"),
        ({"x": 10**5000}, "Exceeds the limit"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, state, expected):
    with pytest.raises(StoreError) as caught:
        tensors.write(tmp_path / "state", state, {})
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'state'}: ")
    assert expected in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("manifest", [{"sha256": "x"}, {"x": {1, 2}}, {"x": b"y"}, {1: 1, "a": 2}])
def test_a_manifest_is_plain_json(tmp_path, manifest):
    with pytest.raises(StoreError, match="cannot write"):
        tensors.write(tmp_path / "state", {}, manifest)


def test_opaque_entries_are_trusted_only_with_a_reason(tmp_path):
    path = tmp_path / "state"

    def trusted(**how):
        return tensors.read(path, **how)[0]["model"].trusted

    tensors.write(path, STATE, {})
    assert not trusted()
    assert not trusted(key=b"key")
    assert trusted(trust_opaque=True)

    tensors.write(path, STATE, {}, key=b"key")
    assert trusted(key=b"key")
    assert not trusted()
    assert not trusted(key=b"another key")
    assert not trusted(key=b"")


def test_a_signature_covers_name_digest_and_data(tmp_path):
    path = tmp_path / "state"
    tensors.write(path, {"a": Opaque(data=b"good", digest="d" * 64)}, {}, key=b"key")
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    forgeries = [
        good.replace(b"good", b"evil"),
        good.replace(b"d" * 64, b"e" * 64),
        good.replace(b'"a"', b'"b"').replace(b'\\"a\\"', b'\\"b\\"'),
    ]
    for forged in forgeries:
        assert forged != good
        path.write_bytes(seal(forged[8 : 8 + length], forged[8 + length :]))
        (entry,) = tensors.read(path, key=b"key")[0].values()
        assert not entry.trusted


def test_what_is_not_trusted_is_not_signed(tmp_path):
    """Else reading an unknown pickle and writing it again would vouch for it."""
    tensors.write(tmp_path / "a", STATE, {})
    state, _ = tensors.read(tmp_path / "a", key=b"key")
    tensors.write(tmp_path / "b", state, {}, key=b"key")
    assert not tensors.read(tmp_path / "b", key=b"key")[0]["model"].trusted


def test_signing_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("PENSTOCK_KEY", "sésame")
    assert tensors.signing_key() == "sésame".encode()
    monkeypatch.setenv("PENSTOCK_KEY", "")
    assert tensors.signing_key() is None
    monkeypatch.delenv("PENSTOCK_KEY")
    assert tensors.signing_key() is None


def test_mapped_arrays_share_one_map_and_outlive_the_file(tmp_path):
    path = tmp_path / "state"
    tensors.write(path, STATE, {})
    state, _ = tensors.read(path, mmap=True)
    path.unlink()
    np.testing.assert_array_equal(state["weights"], STATE["weights"])
    with pytest.raises(ValueError, match="read-only"):
        state["weights"][0] = 1
    assert isinstance(state["weights"].base, mmap.mmap)
    assert state["weights"].base is state["flags"].base


def test_copies_share_nothing(tmp_path):
    tensors.write(tmp_path / "state", STATE, {})
    state, _ = tensors.read(tmp_path / "state")
    assert all(value.base is None for value in state.values() if isinstance(value, np.ndarray))


def test_writing_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "state"
    leftover = tmp_path / ".state.0123abcd.tmp"  # of a writer that was killed
    other = tmp_path / ".states.0123abcd.tmp"
    leftover.touch()
    other.touch()
    for n in range(3):
        tensors.write(path, {"n": n}, {})
        assert tensors.read(path)[0] == {"n": n}
    assert sorted(os.listdir(tmp_path)) == [other.name, "state"]


@pytest.mark.parametrize("where", ["missing/state", "file/state", "directory"])
def test_unwritable_places_are_one_line_errors(tmp_path, where):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(StoreError, match=r"^cannot write [^\n]*: [^\n]*$") as caught:
        tensors.write(tmp_path / where, STATE, {})
    assert str(tmp_path / where) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
    assert os.listdir(tmp_path / "directory") == []


@pytest.mark.parametrize("where", ["missing", "directory", "pipe", "file/state"])
def test_unreadable_places_are_one_line_errors(tmp_path, where):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for reader in (tensors.read, tensors.read_manifest):
        with pytest.raises(StoreError, match=rf"^cannot read {tmp_path / where}: [^\n]+$"):
            reader(tmp_path / where)


FULL_DISK = """
import resource, sys
import numpy as np
from penstock import tensors
from penstock.errors import StoreError
path = sys.argv[1]
tensors.write(path, {"n": 1}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    tensors.write(path, {"n": np.zeros(1_000_000)}, {})
except StoreError as error:
    print(error)
"""


def test_a_write_that_does_not_fit_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert tensors.read(path)[0] == {"n": 1}
    assert os.listdir(tmp_path) == ["state"]
