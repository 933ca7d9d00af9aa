"""Arrays as nnInteractive's clients send and receive them: a header, and chunks packed by blosc2.

Bytes, all numbers little-endian::

    NNIA | version, codec, axes, length of the type's name (1 byte each) | the name | sizes (8 each)
    | number of chunks (4) | of each chunk: its size, its packed size (8 each), itself

Whatever came is checked before anything is unpacked: neither what it claims to hold nor what its
chunks claim may be more than is allowed, and no chunk may name a codec or filter that blosc2 would
load from elsewhere.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from heatmask.errors import InputError
from heatmask.serving.web.limits import Limits, TooLargeError

_MAGIC, _VERSION = b"NNIA", 1
_ZSTD, _LZ4 = 1, 2
_START, _CHUNK = struct.Struct("<4sBBBB"), struct.Struct("<QQ")
_CHUNK_BYTES = 1 << 30
_TYPES = frozenset("bool int8 uint8 int16 uint16 int32 uint32 int64 uint64".split()) | {
    "float16", "float32", "float64",
}  # fmt: skip

_BLOSC_HEADER = 32
_BLOSC_FORMATS, _BLOSC_CODECS, _BLOSC_FILTERS = {0, 1, 4}, {1, 5}, {0, 1, 2}
"""LZ4 and zstd, as one part of a chunk's header numbers them (0 of what is not packed) and as
another; none, shuffle and bit shuffle."""


def pack_array(array: NDArray[Any]) -> bytes:
    """Return an array as clients read it."""
    array = np.ascontiguousarray(array)
    name = array.dtype.name.encode()
    raw = array.reshape(-1).view(np.uint8).data
    pieces = [raw[i : i + _CHUNK_BYTES] for i in range(0, len(raw), _CHUNK_BYTES)]
    packed = [
        blosc2.compress2(
            piece,
            typesize=array.itemsize,
            codec=blosc2.Codec.ZSTD,
            clevel=3,
            filters=[blosc2.Filter.NOFILTER],
            nthreads=1,
        )
        for piece in pieces
    ]
    return b"".join(
        [
            _START.pack(_MAGIC, _VERSION, _ZSTD, array.ndim, len(name)),
            name,
            struct.pack(f"<{array.ndim}q", *array.shape),
            struct.pack("<I", len(pieces)),
            *(
                part
                for piece, chunk in zip(pieces, packed, strict=True)
                for part in (_CHUNK.pack(len(piece), len(chunk)), chunk)
            ),
        ]
    )


def unpack_array(data: bytes | memoryview, limits: Limits) -> NDArray[Any]:
    """Return the array that a client sent.

    Raises
    ------
    InputError
        It cannot be read.
    TooLargeError
        It holds, or claims, more than is allowed.
    """
    try:
        return _unpack(memoryview(data), limits)
    except (struct.error, UnicodeDecodeError, RuntimeError, ValueError) as error:
        raise InputError("The array is cut off or damaged. Send it again.") from error


def _unpack(data: memoryview, limits: Limits) -> NDArray[Any]:
    magic, version, codec, axes, length = _START.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or codec not in (_ZSTD, _LZ4):
        raise InputError(
            "The body must be an array as nninteractive-client 2 packs it (NNIA, version 1)."
        )
    offset = _START.size + length
    name = bytes(data[_START.size : offset]).decode("ascii")
    if name not in _TYPES:
        raise InputError(f"The array must hold numbers, got the type {name[:20]!r}.")
    shape = struct.unpack_from(f"<{axes}q", data, offset)
    dtype = np.dtype(name)
    _check_size(shape, dtype, limits)
    array = np.empty(math.prod(shape), dtype)
    done = 0
    for size, chunk in _read_chunks(data[offset + 8 * axes :], array.nbytes):
        if size % dtype.itemsize:
            raise ValueError(size)
        part = array[done // dtype.itemsize : (done + size) // dtype.itemsize]
        blosc2.decompress2(chunk, dst=part, nthreads=1)
        done += size
    return array.reshape(shape)


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], limits: Limits) -> None:
    if not shape or len(shape) > 4 or min(shape) < 1:
        raise InputError(f"The array must have 1 to 4 axes with voxels, got {shape}.")
    voxels = math.prod(shape)
    if voxels > limits.edited_voxels or voxels * dtype.itemsize > limits.unpacked_bytes:
        raise TooLargeError(
            f"The array claims {' x '.join(map(str, shape))} voxels; at most "
            f"{limits.edited_voxels:,} are taken. Crop or resample the image."
        )


def _read_chunks(data: memoryview, needed: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the size of each chunk and the chunk; all of them have to hold what is needed."""
    (count,) = struct.unpack_from("<I", data)
    offset, held = 4, 0
    for _ in range(count):
        size, packed = _CHUNK.unpack_from(data, offset)
        offset += _CHUNK.size
        chunk = data[offset : offset + packed]
        held, offset = held + size, offset + packed
        if held > needed or not size:
            raise ValueError(held)
        _check_chunk(chunk, size, packed)
        yield size, chunk
    if held != needed:
        raise ValueError(held)


def _check_chunk(chunk: memoryview, size: int, packed: int) -> None:
    """Refuse what is no whole chunk of this size, packed with blosc2's own codecs and filters."""
    if len(chunk) != packed or packed < _BLOSC_HEADER:
        raise ValueError(packed)
    known = (
        chunk[2] >> 5 in _BLOSC_FORMATS
        and chunk[22] in _BLOSC_CODECS
        and _BLOSC_FILTERS.issuperset(chunk[16:22])
    )
    if not known or blosc2.get_cbuffer_sizes(chunk)[:2] != (size, packed):
        raise ValueError(size)
