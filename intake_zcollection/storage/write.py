"""What a fragment contains, as names and bytes; putting them down is the store's business."""

import itertools
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable, Values
from . import layout
from .arrays import ChunkCodec, array_document, array_layout, chunk_codec
from .location import Location
from .loss import check_loss


def write_fragment(location: Location, path: str, schema: Schema, stored: Mapping[str, Values], rows: int) -> int:
    """Write one fragment: a Zarr group with the given variables. Return the bytes stored.

    Parameters
    ----------
    location, path
        Where; nothing may be there yet.
    schema
        The schema of the variables.
    stored
        The encoded values, by variable name, with ``rows`` rows each.
    rows
        The number of rows.

    Raises
    ------
    InvalidInputError
        Values would come back as other ones from the codecs of their variable.
    StorageUnavailableError
        The storage refused.
    """
    return location.store.put(fragment_objects(schema, stored, rows, path))


def remove_attempts(location: Location, paths: Iterable[str]) -> None:
    """Delete groups by their paths: where a path is an intent's, all attempts to write it.

    Raises
    ------
    InvalidInputError
        One of them is no path of a group; nothing is deleted then.
    StorageUnavailableError
        The storage refused.
    """
    location.store.remove(attempts_at(location, paths))


def attempts_at(location: Location, paths: Iterable[str], kept: Container[str] = ()) -> list[str]:
    """Return the paths of groups: where one is an intent's, of all attempts to write it, but for uids that are kept.

    Only directories of intents are listed. Raises as :func:`remove_attempts`.
    """
    found = []
    begun: dict[str, set[str]] = {}
    for path in paths:
        directory, _, uid = path.rpartition("/")
        if not layout.is_group(path):
            raise InvalidInputError(f"{path!r} in {location.url} is not deleted: it is no path of a group")
        if layout.is_intent(uid):
            begun.setdefault(directory, set()).add(uid)
        else:
            found.append(path)
    for directory, uids in begun.items():
        there = [path for path in location.store.list(directory) if layout.is_group(path)]
        found += [path for path in there if layout.intent_of(path) in uids and layout.uid_of(path) not in kept]
    return found


def fragment_objects(schema: Schema, stored: Mapping[str, Values], rows: int, path: str) -> Iterator[tuple[str, bytes]]:
    """Yield the objects of a fragment, metadata and chunks: their paths below the location, and their bytes."""
    variables = [schema.variables[name] for name in stored]
    coordinates = _coordinate_attributes(variables)
    metadata: dict[str, dict[str, Any]] = {}
    for variable in variables:
        attributes = {**variable.attrs.plain, **variable.array["attributes"], **coordinates.get(variable.name, {})}
        if schema.zarr_format == 2:
            attributes["_ARRAY_DIMENSIONS"] = variable.dims
        metadata[variable.stored_name] = array_document(variable, rows, attributes)
    group = {**schema.attrs.plain, **coordinates.get("", {})}
    documents = _format_2_documents if schema.zarr_format == 2 else _format_3_documents
    for name, document in documents(group, metadata).items():
        yield f"{path}/{name}", _to_bytes(document)
    for variable in variables:
        yield from _chunk_objects(variable, rows, stored[variable.name], path)


DECODING_KEYS = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned")
"""The attributes by which xarray decodes numbers, and which the user's never are."""


def array_documents(variable: SchemaVariable, rows: int) -> dict[str, Any]:
    """Return the metadata documents of one array, by their names in its directory; user attributes are left out."""
    document = array_document(variable, rows, variable.array["attributes"])
    if document["zarr_format"] == 2:
        attributes = document.pop("attributes")
        return {".zarray": document, ".zattrs": {"_ARRAY_DIMENSIONS": variable.dims, **attributes}}
    return {"zarr.json": document}


def group_documents(zarr_format: int) -> tuple[str, ...]:
    """Return the names of a fragment's own metadata documents."""
    return (".zgroup", ".zattrs", ".zmetadata") if zarr_format == 2 else ("zarr.json",)


def consolidated(group: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Yield where a document of an array is repeated in the group's: the name of that document, and what is there."""
    if isinstance(group.get(".zmetadata"), Mapping):
        yield ".zmetadata", group[".zmetadata"].get("metadata", {}).get(name)
    if isinstance(group.get("zarr.json"), Mapping):
        metadata = (group["zarr.json"].get("consolidated_metadata") or {}).get("metadata", {})
        yield "zarr.json", metadata.get(name.removesuffix("/zarr.json"))


def _coordinate_attributes(variables: Iterable[SchemaVariable]) -> dict[str, dict[str, str]]:
    """Return the CF attribute ``coordinates`` of each variable, and of the group under the name ''.

    As xarray writes it: each variable names the coordinates that fit its dimensions; those that fit none are named
    by the group. Dimension coordinates need no naming.
    """
    variables = list(variables)
    named = [v for v in variables if v.is_coordinate and v.dims != (v.name,)]
    result: dict[str, dict[str, str]] = {}
    left = {variable.stored_name for variable in named}
    for variable in variables:
        fitting = [c.stored_name for c in named if set(c.dims) <= set(variable.dims) and c is not variable]
        if not variable.is_coordinate and fitting:
            result[variable.name] = {"coordinates": " ".join(fitting)}
            left -= set(fitting)
    if left:
        result[""] = {"coordinates": " ".join(sorted(left))}
    return result


def _chunk_objects(variable: SchemaVariable, rows: int, stored: Values, path: str) -> Iterator[tuple[str, bytes]]:
    arrangement = array_layout(variable, rows)
    codec = chunk_codec(variable)
    for index in itertools.product(*(range(count) for count in arrangement.grid)):
        name = layout.chunk_name(index, variable.array["zarr_format"])
        block = _cut_chunk(stored, index, arrangement.chunks)
        yield f"{path}/{variable.stored_name}/{name}", _encode_block(variable, codec, block, arrangement.chunks, path)


def _cut_chunk(stored: Values, index: Sequence[int], chunks: Sequence[int]) -> Values:
    """Return the values of a chunk, fewer at the edge of the array."""
    cuts: tuple[Any, ...] = tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(index, chunks, strict=True))
    return np.asarray(stored[(*cuts, ...)])  # an array, even without dimensions


def _encode_block(
    variable: SchemaVariable, codec: ChunkCodec, block: Values, chunks: Sequence[int], path: str
) -> bytes:
    """Return the bytes of a chunk; raises InvalidInputError if its codecs refuse its values, or change them."""
    with np.errstate(all="ignore"):  # what overflows in a filter is found out by decoding it
        try:
            data = codec.encode(_padded(block, chunks))
        except (TypeError, ValueError, OverflowError) as error:  # a chunk too large for Blosc, for one
            raise InvalidInputError(
                f"{layout.partition_of(path)}: variable {variable.name} cannot be stored with the encoding it has: "
                f"{error}; choose other codecs or chunks in a new collection's template"
            ) from error
        if codec.inexact:
            back = codec.decode(data, tuple(chunks))[tuple(map(slice, block.shape))]
            check_loss(variable, codec.inexact, block, back, layout.partition_of(path))
    return data


def _padded(block: Values, chunks: Sequence[int]) -> Values:
    if block.shape == tuple(chunks):
        return block
    padded = np.zeros(chunks, block.dtype)  # Zarr's chunks are whole; what lies beyond the edge is never read
    padded[tuple(slice(0, size) for size in block.shape)] = block
    return padded


def _format_3_documents(group: Mapping[str, Any], arrays: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    root = {"zarr_format": 3, "node_type": "group", "attributes": group, "consolidated_metadata": consolidated}
    return {"zarr.json": root} | {f"{name}/zarr.json": document for name, document in arrays.items()}


def _format_2_documents(group: Mapping[str, Any], arrays: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    documents: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": group}
    for name, document in arrays.items():
        array = dict(document)
        documents[f"{name}/.zattrs"] = array.pop("attributes")
        documents[f"{name}/.zarray"] = array
    return documents | {".zmetadata": {"zarr_consolidated_format": 1, "metadata": dict(documents)}}


def _to_bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
