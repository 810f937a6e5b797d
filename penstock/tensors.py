"""One `State` in one file: safetensors layout, a hash over every byte, signatures on opaque entries.

::

    8 bytes   length of the header, little endian
    header    JSON, padded with spaces so that the data starts at a multiple of 64
    data      the arrays without holes, widest items first, so that each is naturally aligned

Anything that reads safetensors reads the arrays. What else a state holds stands in the header's
``__metadata__``, as strings:

========== =======================================================================================
sha256     over the whole file, these 64 digits taken as zeros; always the header's first field
layout     version of this table
manifest   the caller's JSON: which model, which positions, …
opaque     JSON, for each opaque entry the digest of its content and, if signed, its HMAC-SHA256
scalars    JSON of the plain scalars; floats round trip exactly
========== =======================================================================================

Nothing of a file is used, not even its header, before the hash has been verified; and nothing is ever
unpickled here: an opaque entry only learns whether its owner may do so.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import math
import mmap as memory_map
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.errors import StoreError
from penstock.state import Opaque, Scalar, State

__all__ = ["JSON", "read", "read_manifest", "replace", "signing_key", "write"]

JSON: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"
Buffer: TypeAlias = "bytes | memoryview"

_LAYOUT: Final = "1"
_START: Final = b'{"__metadata__":{"sha256":"'
_LENGTH_BYTES: Final = 8
_HASH_AT: Final = _LENGTH_BYTES + len(_START)
_HASH_END: Final = _HASH_AT + 64
_NO_HASH: Final = "0" * 64
_ALIGNMENT: Final = 64  # a cache line
_MAX_HEADER: Final = 64 << 20  # a million entries; below the 100 MB at which safetensors gives up
_MAX_DIMENSIONS: Final = 32
_MAX_BYTES: Final = 1 << 62  # of one array: numpy counts bytes in a signed 64-bit number

_NAMES: Final[Mapping[str, str]] = {
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<u2": "U16",
    "<i2": "I16",
    "<f2": "F16",
    "<u4": "U32",
    "<i4": "I32",
    "<f4": "F32",
    "<u8": "U64",
    "<i8": "I64",
    "<f8": "F64",
}
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {name: np.dtype(code) for code, name in _NAMES.items()}
_SCALARS: Final = frozenset({bool, int, float, str, type(None)})
_HEX64: Final = re.compile("[0-9a-f]{64}")


class _FormatError(ValueError):
    """What is wrong with a file; its caller knows the name."""


@dataclass(frozen=True, slots=True)
class _Array:
    """Where one array lies in the data, and what it is."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int


@dataclass(frozen=True, slots=True)
class _Header:
    """A header that has passed every check that does not need the data."""

    manifest: dict[str, Any]
    scalars: dict[str, Scalar]
    opaque: dict[str, dict[str, str | None]]
    arrays: dict[str, _Array]


def signing_key() -> bytes | None:
    """Return the key that signs opaque entries: the environment variable ``PENSTOCK_KEY``, or None."""
    return os.fsencode(os.environ.get("PENSTOCK_KEY", "")) or None


def write(
    path: str | os.PathLike[str],
    state: Mapping[str, NDArray[Any] | Scalar | Opaque],
    manifest: Mapping[str, JSON],
    *,
    key: bytes | None = None,
) -> str:
    """Write `state` and `manifest` to one file, all or nothing.

    The same state and manifest give the same bytes.

    Parameters
    ----------
    path : path
        Replaced atomically: a reader sees the old file or the new one. It has one writer at a time.
    state : State
        Arrays of booleans, integers or floats of 8 to 64 bits, little endian; scalars; opaque entries.
    manifest : mapping
        Plain JSON, returned by `read` as it is; the name ``sha256`` is taken.
    key : bytes, optional
        Signs the opaque entries that are trusted. One that is not stays unsigned: having passed through
        this process vouches for nothing.

    Returns
    -------
    str
        Hex SHA-256 of the file, as in `read`.

    Raises
    ------
    StoreError
        If an entry cannot be stored (named), or the file cannot be written.
    """
    path = Path(path)
    try:
        sha256, parts = _encode(state, manifest, key)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    replace(path, parts)
    return sha256


def read(
    path: str | os.PathLike[str], *, key: bytes | None = None, trust_opaque: bool = False, mmap: bool = False
) -> tuple[State, dict[str, Any]]:
    """Read and verify what `write` wrote.

    Parameters
    ----------
    path : path
    key : bytes, optional
        An opaque entry signed with this key comes back trusted.
    trust_opaque : bool
        Trust every opaque entry, whoever wrote it.
    mmap : bool
        Give read-only views of one shared memory map instead of copies: processes that read the same file
        share its pages. The map outlives the file's name, but not a truncation in place.

    Returns
    -------
    state : State
    manifest : dict
        As written, and the hash of the file under ``sha256``.

    Raises
    ------
    StoreError
        If the file cannot be read, a single bit of it is not as it was written, or it is malformed.
    """
    path = Path(path)
    content = memoryview(_content(path, mmap=mmap))
    try:
        header_end = _header_end(content[:_HASH_AT], len(content))
        _verify(content)
        header = _parse(bytes(content[_LENGTH_BYTES:header_end]), len(content) - header_end)
        state = _decode(header, content[header_end:], key=key, trust_opaque=trust_opaque, copy=not mmap)
    except _FormatError as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    return state, header.manifest


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the manifest, and the stored hash under ``sha256``, from the header alone.

    Cheap, however large the file. The hash is *not* verified: this is for listings; what is to be
    relied on comes from `read`.

    Raises
    ------
    StoreError
        If the file cannot be read or its header is malformed.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_HASH_AT)
            header_end = _header_end(start, size)
            rest = file.read(header_end - _HASH_AT)
        header = _parse(start[_LENGTH_BYTES:] + rest, size - header_end)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except _FormatError as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    return header.manifest


def replace(path: Path, parts: Iterable[Buffer]) -> None:
    """Make `parts` the content of the file at `path`, atomically and durably.

    A temporary file in the same directory is written, synced, renamed over `path`, and the directory
    synced. Leftovers of a writer of the same file that was killed are removed first, which is why a file
    has one writer at a time.

    Raises
    ------
    StoreError
        If that fails; the old file, if any, is untouched then and nothing else is left behind.
    """
    stem = f".{path.name}."
    temporary = path.parent / f"{stem}{secrets.token_hex(4)}.tmp"
    try:
        for leftover in os.listdir(path.parent):
            if leftover.startswith(stem) and leftover.endswith(".tmp"):
                (path.parent / leftover).unlink(missing_ok=True)
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _encode(
    state: Mapping[str, NDArray[Any] | Scalar | Opaque], manifest: Mapping[str, JSON], key: bytes | None
) -> tuple[str, list[Buffer]]:
    """Return the hash and the parts of the file, in order; arrays are not copied."""
    if "sha256" in manifest:
        raise ValueError("`sha256` in a manifest is the hash of the file")
    arrays: dict[str, NDArray[Any]] = {}
    scalars: dict[str, Scalar] = {}
    opaque: dict[str, dict[str, str | None]] = {}
    for name, value in state.items():
        if name == "__metadata__" or not _is_text(name):
            raise ValueError(f"{name!r} cannot be the name of an entry")
        if isinstance(value, Opaque):
            digest = value.digest
            signature = _signature(key, name, digest, value.data) if key and value.trusted else None
            opaque[name] = {"digest": digest, "hmac": signature}
            arrays[name] = np.frombuffer(value.data, dtype=np.uint8)
        elif isinstance(value, np.ndarray):
            if value.dtype.str not in _NAMES:
                known = ", ".join(_NAMES)
                raise ValueError(f"entry {name!r} has dtype {value.dtype.str!r}: expected one of {known}")
            arrays[name] = value
        elif type(value) in _SCALARS:
            scalars[name] = value
        else:
            raise ValueError(
                f"entry {name!r} is a {type(value).__module__}.{type(value).__qualname__}: "
                f"expected an array, bool, int, float, str, None or Opaque"
            )

    position, entries, data = 0, {}, []
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        array = arrays[name]
        entries[name] = {
            "dtype": _NAMES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
        data.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    metadata = {
        "sha256": _NO_HASH,
        "layout": _LAYOUT,
        "manifest": _dumps(manifest),
        "opaque": _dumps(opaque),
        "scalars": _dumps(scalars),
    }
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    header += b" " * (-(_LENGTH_BYTES + len(header)) % _ALIGNMENT)
    if len(header) > _MAX_HEADER:
        raise ValueError(f"the header would take {len(header)} bytes: at most {_MAX_HEADER} are allowed")

    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    sha = hashlib.sha256(length + header)
    for part in data:
        sha.update(part)
    sha256 = sha.hexdigest()
    return sha256, [length, _START, sha256.encode(), header[len(_START) + len(_NO_HASH) :], *data]


def _content(path: Path, *, mmap: bool) -> bytes | memory_map.mmap:
    try:
        with _opened(path) as file:
            if mmap and os.fstat(file.fileno()).st_size:  # an empty file cannot be mapped
                return memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ)
            return file.read()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def _opened(path: Path) -> BufferedReader:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise OSError(errno.EINVAL, "not a regular file")
    return open(path, "rb")


def _header_end(start: Buffer, size: int) -> int:
    """Offset of the data, checked against the size of the file."""
    if size < _HASH_END:
        raise _FormatError(f"expected at least {_HASH_END} bytes, got {size}")
    if start[_LENGTH_BYTES:_HASH_AT] != _START:
        raise _FormatError(f"expected a header that starts with {_START.decode()}")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    most = min(_MAX_HEADER, size - _LENGTH_BYTES)
    if not _HASH_END - _LENGTH_BYTES <= length <= most:
        raise _FormatError(f"expected a header of at most {most} bytes, got {length}")
    if (_LENGTH_BYTES + length) % _ALIGNMENT:
        raise _FormatError(f"expected data at a multiple of {_ALIGNMENT}, got {_LENGTH_BYTES + length}")
    return _LENGTH_BYTES + length


def _verify(content: memoryview) -> None:
    sha = hashlib.sha256(content[:_HASH_AT])
    sha.update(_NO_HASH.encode())
    sha.update(content[_HASH_END:])
    stored, computed = bytes(content[_HASH_AT:_HASH_END]), sha.hexdigest()
    if stored != computed.encode():
        shown = stored.decode("ascii", "backslashreplace")
        raise _FormatError(f"expected SHA-256 {shown}, got {computed} over its {len(content)} bytes")


def _parse(header: bytes, data_size: int) -> _Header:
    entries = _object(_loads(header, "the header"), "the header")
    metadata = _object(entries.pop("__metadata__", None), "`__metadata__`")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise _FormatError("expected strings in `__metadata__`")
    if metadata.get("layout") != _LAYOUT:
        raise _FormatError(f"expected layout {_LAYOUT}, got {metadata.get('layout')}")
    expected = {"sha256", "layout", "manifest", "opaque", "scalars"}
    if metadata.keys() != expected:
        raise _FormatError(f"expected {sorted(expected)} in `__metadata__`, got {sorted(metadata)}")

    arrays, position = {}, 0
    for name, entry in entries.items():
        arrays[name], position = _placed(name, entry, position)
    if position != data_size:
        raise _FormatError(f"expected {position} bytes of data, got {data_size}")

    scalars = _object(_loads(metadata["scalars"], "`scalars`"), "`scalars`")
    for name, value in scalars.items():
        if type(value) not in _SCALARS or name in arrays:
            raise _FormatError(f"expected a scalar of its own at {name!r}")
    opaque = _object(_loads(metadata["opaque"], "`opaque`"), "`opaque`")
    for name, marker in opaque.items():
        _check_marker(name, marker, arrays.get(name))
    manifest = _object(_loads(metadata["manifest"], "`manifest`"), "`manifest`")
    return _Header({**manifest, "sha256": metadata["sha256"]}, scalars, opaque, arrays)


def _placed(name: str, entry: object, position: int) -> tuple[_Array, int]:
    """Check one array's entry, which has to begin at `position`; return it and where it ends."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _FormatError(f"expected dtype, shape and data_offsets at {name!r}")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise _FormatError(f"expected the dtype of {name!r} to be one of {', '.join(_DTYPES)}")
    shape = entry["shape"]
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise _FormatError(f"expected the shape of {name!r} to have at most {_MAX_DIMENSIONS} dimensions")
    if not all(type(size) is int and 0 <= size < _MAX_BYTES for size in shape):
        raise _FormatError(f"expected whole numbers in the shape of {name!r}")
    if math.prod(size or 1 for size in shape) * dtype.itemsize >= _MAX_BYTES:
        raise _FormatError(f"expected an array that fits into memory at {name!r}")
    end = position + math.prod(shape) * dtype.itemsize
    if entry["data_offsets"] != [position, end] or position % dtype.itemsize:
        raise _FormatError(f"expected data_offsets [{position}, {end}], aligned to an item, at {name!r}")
    return _Array(dtype, tuple(shape), position), end


def _check_marker(name: str, marker: object, array: _Array | None) -> None:
    if array is None or array.dtype != np.uint8 or len(array.shape) != 1:
        raise _FormatError(f"expected the bytes of the opaque entry {name!r} among the arrays")
    if not isinstance(marker, dict) or marker.keys() != {"digest", "hmac"}:
        raise _FormatError(f"expected digest and hmac for the opaque entry {name!r}")
    signature = marker["hmac"]
    if not isinstance(marker["digest"], str) or not (
        signature is None or (isinstance(signature, str) and _HEX64.fullmatch(signature))
    ):
        raise _FormatError(f"expected a text and 64 hex digits for the opaque entry {name!r}")


def _decode(header: _Header, data: memoryview, *, key: bytes | None, trust_opaque: bool, copy: bool) -> State:
    state: State = dict(header.scalars)
    for name, array in header.arrays.items():
        view: NDArray[Any] = np.ndarray(array.shape, array.dtype, buffer=data, offset=array.begin)
        if name in header.opaque:
            marker = header.opaque[name]
            content, digest, signature = view.tobytes(), str(marker["digest"]), marker["hmac"]
            signed = (
                key is not None
                and signature is not None
                and hmac.compare_digest(_signature(key, name, digest, content), signature)
            )
            state[name] = Opaque(data=content, digest=digest, trusted=trust_opaque or signed)
            continue
        if array.dtype == np.bool_ and np.any(view.view(np.uint8) > 1):
            raise _FormatError(f"expected bytes 0 and 1 in the booleans of {name!r}")
        state[name] = view.copy() if copy else view
    return state


def _signature(key: bytes, name: str, digest: str, data: bytes) -> str:
    # JSON ends where it says, so no other name and digest give the same bytes.
    mac = hmac.new(key, json.dumps(["penstock opaque", name, digest]).encode(), "sha256")
    mac.update(data)
    return mac.hexdigest()


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _loads(text: str | bytes, what: str) -> object:
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _FormatError(f"expected JSON in {what}: {error}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a name occurs twice")
    return mapping


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _FormatError(f"expected {what} to be a JSON object")
    return value


def _is_text(name: object) -> bool:
    """Whether `name` is a string that UTF-8 can encode, as every other reader of the format demands."""
    if not isinstance(name, str):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
