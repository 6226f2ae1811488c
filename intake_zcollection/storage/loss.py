"""What the codecs of a chunk do to its values: which give them back, how far others may go, and what is refused.

A filter or a serializer may be anything: it may round, wrap around what is out of its range, or spread one NaN over all
that follows. Codecs that are known to give back every bit cost nothing more. Of others, each chunk is decoded again
and compared, before it is put down.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..schema import SchemaVariable, Values, encoding

Mask = npt.NDArray[np.bool_]

_EXACT = frozenset(
    {"bytes", "transpose", "vlen-utf8", "blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4", "shuffle"}
    | {"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"}
)
"""Codecs that give back every bit, of any dtype."""


def inexact_codecs(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the codecs of a Zarr document that are not known to give back every bit: names and configurations."""
    return [(name, configuration) for name, configuration in _codecs(document) if not _is_exact(name, configuration)]


def _codecs(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if document.get("zarr_format") == 2:
        for config in (*(document["filters"] or ()), document["compressor"]):
            if config is not None:
                yield config["id"], config
        return
    for codec in document["codecs"]:
        configuration = codec.get("configuration", {})
        if codec["name"] == "sharding_indexed":
            yield from _codecs(configuration)
        else:
            yield codec["name"].removeprefix("numcodecs."), configuration


def _is_exact(name: str, configuration: Mapping[str, Any]) -> bool:
    if name == "delta":  # differences of integers wrap around, and back again
        dtype = np.dtype(configuration["dtype"])
        return dtype.kind in "iu" and np.dtype(configuration.get("astype") or dtype) == dtype
    return name in _EXACT


def check_loss(
    variable: SchemaVariable, codecs: list[tuple[str, Mapping[str, Any]]], stored: Values, back: Values, where: str
) -> None:
    """Raise InvalidInputError unless a block comes back from its codecs: equal, or rounded if the schema allows it.

    Parameters
    ----------
    variable
        The variable; where it is lossy, its numbers may be rounded as far as its codecs say they do. What is missing
        stays so, and nothing else becomes it.
    codecs
        Those that are not exact.
    stored, back
        What was encoded, and what was decoded; of the same shape, dtype ``variable.stored_dtype``.
    where
        The partition, for the message.
    """
    if variable.lossy and stored.dtype.kind in "iufc":
        changed = _is_far(codecs, stored, back) | (_missing(variable, stored) != _missing(variable, back))
    else:
        changed = ~_is_same(stored, back)
    if not np.any(changed):
        return
    names = ", ".join(name for name, _ in codecs)
    first, wrong = (encoding.decode(variable, values[changed][:1])[0] for values in (stored, back))
    remedy = "store it without" if variable.lossy else "store it without, or say that rounding is wanted, by lossy=True"
    raise InvalidInputError(
        f"{where}: variable {variable.name}: {np.count_nonzero(changed)} of {stored.size} values, the first of them "
        f"{first}, would come back as other ones ({wrong}) from {names} in its encoding"
        f"{', which goes further than rounding' * variable.lossy}; {remedy}, in a new collection's template"
    )


def _is_same(stored: Values, back: Values) -> Mask:
    """Where values are equal, NaN to NaN, and zeros to those of their sign."""
    if stored.dtype.kind == "c":
        return _is_same(stored.real, back.real) & _is_same(stored.imag, back.imag)
    same = np.asarray(stored == back)
    if stored.dtype.kind == "f":
        same = (same & (np.signbit(stored) == np.signbit(back))) | (np.isnan(stored) & np.isnan(back))
    return same


def _is_far(codecs: list[tuple[str, Mapping[str, Any]]], stored: Values, back: Values) -> Mask:
    """Where numbers are further away than rounding goes; an infinity is far from any other number."""
    if stored.dtype.kind == "c":
        return _is_far(codecs, stored.real, back.real) | _is_far(codecs, stored.imag, back.imag)
    given, read = stored.astype(np.float64), back.astype(np.float64)
    # What several codecs do together is not known, nor what any does that _bound does not know.
    bound = _bound(*codecs[0], given, stored.dtype) if len(codecs) == 1 else np.inf
    infinite = np.isinf(given) | np.isinf(read)
    far = np.where(infinite, given != read, np.abs(read - given) > bound)
    return np.asarray(far & ~(np.isnan(given) | np.isnan(read)))


def _bound(name: str, configuration: Mapping[str, Any], given: Values, dtype: np.dtype[Any]) -> Any:
    """Return how far a codec may move values, as its documentation has it; infinitely far, if it is not known."""
    kept = np.dtype(configuration.get("encode_dtype") or configuration.get("astype") or dtype)
    kinds = [np.finfo(each).eps for each in (kept, dtype) if each.kind == "f"]
    floats = 4 * max(kinds, default=np.finfo(np.float64).eps) * (np.abs(given) + abs(configuration.get("offset", 0)))
    match name:
        case "fixedscaleoffset":
            return 0.5 / abs(configuration["scale"]) + floats
        case "quantize":
            return 0.5 * 10.0 ** -configuration["digits"] + floats
        case "bitround":
            smallest = float(np.finfo(dtype).smallest_normal) if dtype.kind == "f" else 0.0
            return np.maximum(np.abs(given), smallest) * 2.0 ** -(configuration["keepbits"] + 1)
        case "astype":
            return floats + (1.0 if kept.kind in "iu" else 0.0)  # an integer, cut off towards zero
    return np.inf


def _missing(variable: SchemaVariable, stored: Values) -> Mask:
    values = encoding.decode(variable, stored)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    return np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)
