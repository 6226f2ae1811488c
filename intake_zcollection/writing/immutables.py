"""The immutable variables as inserts bring them: stored together in one group, and compared ever after."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from ..reading.selection import Selected
from ..schema import Schema, Values
from ..schema.encoding import decode
from .inputs import Input
from .plan import Arrays, Content, Part, Step, Target, immutable_need


@dataclass(frozen=True)
class ImmutableJob:
    """The group of the immutable variables."""

    target: Target

    def content(self, arrays: Arrays) -> Content:
        """Return the variables as they are."""
        return Content({name: pieces[0] for name, pieces in arrays.items()}, (Part(self.target.key, 0),))


def immutable_step(target: Target, stored: Mapping[str, Values], head: Selected) -> Step:
    """Return the step that stores encoded immutable variables, if nobody else does meanwhile."""
    arrays = {name: [values] for name, values in stored.items()}
    return Step(None, ImmutableJob(target), arrays, (immutable_need(head.snapshot),), title="immutable variables")


def inserted_immutables(schema: Schema, inputs: Iterable[Input], head: Selected) -> dict[str, Values]:
    """Return the encoded immutable variables that are to be stored: of the first insert that brings any.

    Raises InvalidInputError where they differ from those stored or among each other, or do not come together.
    """
    collection, given = head.collection.name, dict[str, tuple[Values, str]]()
    is_stored = head.snapshot.immutable is not None
    for each in inputs:
        for name, values in each.immutable.items():
            first, label = given.setdefault(name, (values, each.label))
            if first is not values and np.array_equal(first, values, equal_nan=values.dtype.kind in "fc"):
                continue
            if is_stored:
                _check_stored(schema, name, values, each.label, head)
            _check_among(schema, name, (first, values), f"{label} and {each.label}", collection)
    if is_stored or not given:
        return {}
    missing = [name for name in schema.immutable if name not in given]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection} come together, with the first insert that brings "
            f"any: the dataset lacks {', '.join(missing)}"
        )
    return {name: values for name, (values, _) in given.items()}


def _check_stored(schema: Schema, name: str, values: Values, label: str, head: Selected) -> None:
    variable = schema.variables[name]
    difference = describe_difference(head.origins[name].read(variable), decode(variable, values))
    if difference:
        raise InvalidInputError(
            f"the immutable variable {name} of collection {head.collection.name} is stored already, and "
            f"{label or 'the dataset'} has other values ({difference}); leave it out, data.drop_vars({name!r}), or "
            f"replace it with set_immutables; {_advice(schema, name)}"
        )


def _check_among(schema: Schema, name: str, both: tuple[Values, Values], labels: str, collection: str) -> None:
    first, other = (decode(schema.variables[name], values) for values in both)
    difference = describe_difference(first, other)
    if difference:
        raise InvalidInputError(
            f"the immutable variable {name} of collection {collection} differs between {labels} ({difference}), and is "
            f"stored once for all; {_advice(schema, name)}"
        )


def _advice(schema: Schema, name: str) -> str:
    """Return what becomes of a variable that is not the same for all: a scalar has its rows, a grid may be rounded."""
    dimension = schema.dimension
    if schema.variables[name].dims:
        return (
            f"if that is rounding, leave it out of all inputs but one, data.drop_vars({name!r}); if it changes "
            f"with the rows, create the collection from a template where it has the dimension {dimension!r}"
        )
    return (
        f"a value of each input belongs to its rows: create the collection from a template, and insert data, with "
        f"data.assign({name}=data[{name!r}].expand_dims({dimension}=data.sizes[{dimension!r}]))"
    )


def describe_difference(first: Values, other: Values) -> str:
    """Return how many values differ, and by how much at most; nothing if they are equal.

    >>> describe_difference(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    '1 of 2 differ, by 0.5 at most'
    """
    different = first != other
    if first.dtype.kind in "fcMm":
        different = different & ~(np.isnan(first) & np.isnan(other))
    if not np.any(different):
        return ""
    count = f"{np.count_nonzero(different)} of {first.size} differ"
    if first.dtype.kind not in "iufcMm":
        return f"{count}, {first[different].flat[0]!r} from {other[different].flat[0]!r} for one"
    missing = np.isnan(first) | np.isnan(other) if first.dtype.kind in "fcMm" else np.zeros(first.shape, bool)
    both = different & ~missing
    if not np.any(both):
        return f"{count}, missing in one of them"
    numbers = [
        values[both].astype(np.float64) if first.dtype.kind in "iu" else values[both] for values in (first, other)
    ]
    return f"{count}, by {np.max(np.abs(numbers[0] - numbers[1])):} at most"
