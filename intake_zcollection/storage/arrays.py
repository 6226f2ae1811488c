"""What Zarr says of an array, as a function of schema and rows; and the coding of single chunks.

A chunk is encoded and decoded directly with numcodecs where its codecs are the usual ones, which costs a
tenth of a call through a Zarr array. Any other codec goes through zarr-python, on an array of one chunk.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numcodecs
import numpy as np
import zarr
import zarr.storage
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.buffer import cpu

from ..schema import SchemaVariable, Values
from ..schema.schema import dtype_of
from . import layout
from .loss import inexact_codecs

_BLOSC_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True)
class ArrayLayout:
    """The shape of one stored array and of its chunks."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each dimension."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))


def array_layout(variable: SchemaVariable, rows: int) -> ArrayLayout:
    """Return the layout of a variable in a fragment of ``rows`` rows: chunks are clipped to the partition."""
    shape = variable.shape(rows)
    document = variable.array
    chunks = document["chunks"] if "chunks" in document else document["chunk_grid"]["configuration"]["chunk_shape"]
    inner = _shard_chunks(document) or [1] * len(shape)
    # A shard stays a whole number of its inner chunks.
    clipped = (
        min(chunk, -(-max(size, 1) // step) * step) for size, chunk, step in zip(shape, chunks, inner, strict=True)
    )
    return ArrayLayout(shape, tuple(clipped))


def array_document(variable: SchemaVariable, rows: int, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Zarr metadata of a variable in a fragment of ``rows`` rows; format 2 has attributes apart."""
    arrangement = array_layout(variable, rows)
    document = {**variable.array, "shape": arrangement.shape, "attributes": attributes}
    if document["zarr_format"] == 2:
        return document | {"chunks": arrangement.chunks}
    grid = {"name": "regular", "configuration": {"chunk_shape": arrangement.chunks}}
    return document | {"chunk_grid": grid}


def _shard_chunks(document: Mapping[str, Any]) -> list[int] | None:
    codecs = document.get("codecs", [])
    return next(
        (codec["configuration"]["chunk_shape"] for codec in codecs if codec["name"] == "sharding_indexed"), None
    )


class ChunkCodec:
    """Encodes and decodes the chunks of one variable."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.dtype = dtype_of(document)
        self._filters, self._compressors = _numcodecs_of(document)
        codecs = [*self._filters, *(self._compressors or ())]
        self._blosc = codecs[0] if len(codecs) == 1 and isinstance(codecs[0], numcodecs.Blosc) else None
        self.inexact = inexact_codecs(document)
        """Those of its codecs that are not known to give back every bit: names and configurations."""

    def encode(self, chunk: Values) -> bytes:
        """Return the bytes of a whole chunk."""
        if self._compressors is None:
            return _encode_by_zarr(self._document, chunk)
        buffer: Any = np.ascontiguousarray(chunk, self.dtype).reshape(chunk.shape)
        for codec in (*self._filters, *self._compressors):
            buffer = codec.encode(buffer)
        return bytes(ensure_contiguous_ndarray(buffer).view("u1").data)

    def decode_into(self, target: Values, data: bytes, shape: tuple[int, ...], inside: tuple[slice, ...]) -> None:
        """Write the part ``inside`` of the chunk of ``shape`` that was encoded as ``data`` into an array."""
        if self._blosc is not None and target.shape == shape and target.flags.c_contiguous:
            _check_blosc_sizes(data, target.nbytes)
            self._blosc.decode(data, out=target)  # saves a copy
        else:
            target[...] = self.decode(data, shape)[inside]

    def decode(self, data: bytes, shape: tuple[int, ...]) -> Values:
        """Return the chunk of ``shape`` that was encoded as ``data``; read-only."""
        if not data:
            raise ValueError("it is empty")
        if _ends_in_blosc(self._document):
            _check_blosc_sizes(data)
        if self._compressors is None:
            return _decode_by_zarr(self._document, data, shape)
        buffer: Any = data
        for codec in reversed((*self._filters, *self._compressors)):
            buffer = codec.decode(buffer)
        if self.dtype.hasobject:
            return np.asarray(buffer, object).reshape(shape)
        return np.frombuffer(ensure_contiguous_ndarray(buffer).view("u1"), self.dtype).reshape(shape)


def _ends_in_blosc(document: Mapping[str, Any]) -> bool:
    if document["zarr_format"] == 2:
        return (document["compressor"] or {}).get("id") == "blosc"
    return bool(document["codecs"][-1]["name"] == "blosc")


def _check_blosc_sizes(data: bytes, nbytes: int | None = None) -> None:
    """Raise ValueError unless all of a compressed buffer is there, and has ``nbytes`` bytes when it is decoded.

    Blosc itself would read on behind its end.
    """
    # Bytes 4 to 7 of the header are the size, 12 to 15 the compressed one: https://www.blosc.org/c-blosc/readme.html
    size, compressed = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
    if len(data) < 16 or len(data) != compressed:
        raise ValueError(f"it has {len(data)} bytes, and {compressed} were written")
    if nbytes is not None and size != nbytes:
        raise ValueError(f"it holds {size} bytes, and not {nbytes}")


def chunk_codec(variable: SchemaVariable) -> ChunkCodec:
    """Return the codec of a variable's chunks."""
    return _chunk_codec(variable.array_text)


@lru_cache(maxsize=1024)
def _chunk_codec(document: str) -> ChunkCodec:
    return ChunkCodec(json.loads(document))


def _numcodecs_of(document: Mapping[str, Any]) -> tuple[list[Codec], list[Codec] | None]:
    """Return filters and compressors, the latter None where numcodecs alone cannot do it."""
    if document["zarr_format"] == 2:
        if document["order"] != "C":
            return [], None
        compressor = document["compressor"]
        return (
            [numcodecs.get_codec(config) for config in document["filters"] or ()],
            [numcodecs.get_codec(compressor)] if compressor is not None else [],
        )
    first, *others = document["codecs"]
    filters: list[Codec] = []
    if first["name"] == "vlen-utf8":
        filters = [numcodecs.VLenUTF8()]
    elif first["name"] != "bytes" or first.get("configuration", {}).get("endian", "little") != "little":
        return [], None
    compressors = [_numcodec(codec["name"], dict(codec.get("configuration", {}))) for codec in others]
    return filters, None if None in compressors else compressors


def _numcodec(name: str, configuration: dict[str, Any]) -> Codec | None:
    match name:
        case "blosc":
            return numcodecs.Blosc(**configuration | {"shuffle": _BLOSC_SHUFFLES[configuration["shuffle"]]})
        case "zstd":
            return numcodecs.Zstd(**configuration)
        case "gzip":
            return numcodecs.GZip(**configuration)
    return None


def _one_chunk_array(document: Mapping[str, Any], shape: tuple[int, ...], objects: dict[str, Any]) -> zarr.Array[Any]:
    """Return an array in memory that consists of a single chunk of ``shape``."""
    whole = {**document, "shape": shape}
    if document["zarr_format"] == 2:
        attributes = whole.pop("attributes")
        whole["chunks"] = shape
        objects[".zattrs"] = cpu.Buffer.from_bytes(json.dumps(attributes).encode())
        objects[".zarray"] = cpu.Buffer.from_bytes(json.dumps(whole).encode())
    else:
        whole["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": shape}}
        objects["zarr.json"] = cpu.Buffer.from_bytes(json.dumps(whole).encode())
    store = zarr.storage.MemoryStore(objects)
    return zarr.open_array(store, mode="r+").with_config({"write_empty_chunks": True})


def _encode_by_zarr(document: Mapping[str, Any], chunk: Values) -> bytes:
    objects: dict[str, Any] = {}
    _one_chunk_array(document, chunk.shape, objects)[...] = chunk
    data: bytes = objects[layout.chunk_name((0,) * chunk.ndim, document["zarr_format"])].to_bytes()
    return data


def _decode_by_zarr(document: Mapping[str, Any], data: bytes, shape: tuple[int, ...]) -> Values:
    name = layout.chunk_name((0,) * len(shape), document["zarr_format"])
    array = _one_chunk_array(document, shape, {name: cpu.Buffer.from_bytes(data)})
    return np.asarray(array[...])
