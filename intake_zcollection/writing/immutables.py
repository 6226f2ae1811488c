"""The immutable variables as inserts bring them: stored together in one group, and compared ever after."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from ..reading.selection import Selected
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode
from .inputs import Input
from .plan import Arrays, Content, Part, Step, Target, immutable_need


@dataclass(frozen=True)
class ImmutableJob:
    """The group of the immutable variables."""

    target: Target

    def content(self, arrays: Arrays) -> Content:
        """Return the variables as they are."""
        return Content({name: pieces[0] for name, pieces in arrays.items()}, Part(self.target.key, 0))


def immutable_step(target: Target, stored: Mapping[str, Values], head: Selected) -> Step:
    """Return the step that stores encoded immutable variables, if nobody else does meanwhile."""
    arrays = {name: [values] for name, values in stored.items()}
    return Step(ImmutableJob(target), arrays, (immutable_need(head.snapshot),))


def inserted_immutables(schema: Schema, inputs: Iterable[Input], head: Selected) -> dict[str, Values]:
    """Return the encoded immutable variables that are to be stored: of the first insert that brings any.

    Raises InvalidInputError where they differ from those stored or among each other, or do not come together.
    """
    collection, given = head.collection.name, dict[str, Values]()
    is_stored = head.snapshot.immutable is not None
    for each in inputs:
        for name, values in each.immutable.items():
            variable = schema.variables[name]
            if is_stored and name not in given:
                _check_same(variable, head.origins[name].read(variable), decode(variable, values), collection)
            _check_same(variable, given.setdefault(name, values), values, collection)
    if is_stored or not given:
        return {}
    missing = [name for name in schema.immutable if name not in given]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection} come together, with the first insert that brings "
            f"any: the dataset lacks {', '.join(missing)}"
        )
    return given


def _check_same(variable: SchemaVariable, existing: Values, given: Values, collection: str) -> None:
    different = existing != given
    if given.dtype.kind in "fcMm":
        different = different & ~(np.isnan(existing) & np.isnan(given))
    if np.any(different):
        raise InvalidInputError(
            f"the immutable variable {variable.name} of collection {collection} is stored already, and the dataset has "
            f"other values ({np.count_nonzero(different)} of {given.size} differ); leave it out, data.drop_vars(…), or "
            "replace it with set_immutables"
        )
