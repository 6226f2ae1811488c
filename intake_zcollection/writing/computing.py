"""What a worker does of an update: a function called with a partition, and what it returned laid where it belongs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from registry.overlay import Rows

from ..errors import InvalidInputError
from ..reading.placing import Labels, as_variable
from ..reading.window import Call, Window
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import encode
from ..schema.names import near
from .check import check_dtype
from .plan import (
    Arrays,
    Content,
    Target,
    own_parts,
    parts_of,
)


@dataclass(frozen=True)
class Computation:
    """A function to call with one partition."""

    collection: str
    """The collection's name, for messages."""
    schema: Schema
    window: Window
    inputs: tuple[str, ...]
    call: Call
    trim: bool

    def run(self) -> "Returned":
        """Call the function."""
        dataset = self.window.read(self.schema, self.inputs)
        before = dataset.copy(deep=True)
        labels = Labels.of(self.schema, self.window, before)
        result = self.call(dataset, self.window, self.schema.dimension)
        if isinstance(result, xr.Dataset):
            own = before.isel({self.schema.dimension: self.window.own_rows}).variables
            return Returned(self, labels, _by_name(result, self.schema.axis), {str(name): own[name] for name in own})
        if isinstance(result, Mapping):
            return Returned(self, labels, {str(name): value for name, value in result.items()}, {})
        raise InvalidInputError(
            f"the function to update collection {self.collection} with returned {type(result).__name__} in partition "
            f"{self.window.name}; it has to return a dict of arrays by variable, or an xarray.Dataset"
        )

    def wrong(self, what: str) -> InvalidInputError:
        """Return the error of a result that does not fit."""
        return InvalidInputError(f"{self.window.name}: the function to update collection {self.collection} with {what}")


@dataclass(frozen=True)
class Returned:
    """What a function made of a partition."""

    of: Computation
    labels: Labels
    given: Mapping[str, Any]
    """As it was returned, by variable."""
    seen: Mapping[str, xr.Variable]
    """What the partition had before, of all that may come back unchanged: in a dataset, as with dataset.assign(…)."""

    def is_unchanged(self, name: str) -> bool:
        """Whether a variable came back as it was."""
        return name in self.seen and bool(self.own(name).equals(self.seen[name]))

    def own(self, name: str) -> xr.Variable:
        """Return the partition's own values of a variable, in the order of its rows and of all other labels."""
        try:
            return self._find_own(name).compute()
        except InvalidInputError:
            raise
        except Exception as error:  # of the function's own, if what it returned is lazy
            error.add_note(f"in partition {self.of.window.name}")
            raise

    def _find_own(self, name: str) -> xr.Variable:
        variable, window, trim = self.of.schema.variables[name], self.of.window, self.of.trim
        try:
            made, labelled = as_variable(self.of.schema, variable, self.given[name])
        except (TypeError, ValueError) as error:
            raise self.of.wrong(f"returned no array for {name}: {error}") from error
        if made.dims != variable.dims:
            raise self.of.wrong(f"returned {name} with dimensions {made.dims}, and it has {variable.dims}")
        own, what = window.own_rows, f"returned {name}"
        expected = variable.shape(window.rows if trim else own.stop - own.start)
        places: dict[Any, Any] = {}
        for dimension, size in zip(variable.dims, expected, strict=True):
            found = self.labels.find_own(labelled, dimension, trim=trim, what=str(self.of.wrong(what)))
            if found is not None:
                places[dimension] = found
            elif made.sizes[dimension] != size:
                hint = "; with trim=True it returns values for all rows that it gets" * (trim and len(window.sizes) > 1)
                raise self.of.wrong(f"{what} with shape {made.shape}, and it needs {expected}{hint}")
            elif dimension == self.of.schema.dimension and trim:
                places[dimension] = own
        return made.isel(places)


@dataclass(frozen=True)
class UpdateJob:
    """One layer to compute."""

    target: Target
    outputs: tuple[str, ...]
    computation: Computation
    over: tuple[Rows, ...] | None = None
    """Of a view: over which rows of its base; None for the parts of the partition."""

    def content(self, _: Arrays) -> Content:
        """Compute one partition's variables; what the function does not return keeps its values."""
        schema, window = self.computation.schema, self.computation.window
        returned = self.computation.run()
        stored = {}
        for name in returned.given:
            if name in self.outputs:
                stored[name] = self._encoded(schema.variables[name], returned)
            elif not returned.is_unchanged(name):
                raise self.computation.wrong(
                    f"returned {name}, which is not among the outputs; {near(name, self.outputs)}"
                )
        own, missing = window.alone, [name for name in self.outputs if name not in stored]
        if self.over is not None:
            if missing:  # what there is may be older than what is computed now
                raise self.computation.wrong(f"returned no {', '.join(missing)}, which a view has to compute together")
            return Content({name: stored[name] for name in self.outputs}, own_parts(self.target.key, self.over))
        kept = own.read(schema, missing)
        stored |= {str(name): encode(schema.variables[str(name)], kept[name].values) for name in kept.variables}
        parts = parts_of(self.target.key, own.origins[schema.axis].rows)
        values = {name: stored[name] for name in self.outputs}
        return Content(values, parts, lambda variable: own.origins[variable.name].read(variable))

    def _encoded(self, variable: SchemaVariable, returned: Returned) -> Values:
        """Return the partition's own values of a variable, as stored."""
        values = np.asarray(returned.own(variable.name).values)
        check_dtype(variable, values.dtype, f"variable {variable.name} of collection {self.computation.collection}")
        try:
            return encode(variable, values)
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.computation.window.name}: {error}") from error


def _by_name(result: xr.Dataset, axis: str) -> dict[str, xr.DataArray]:
    """Return the variables of a dataset, with their labels."""
    labelled = result.set_coords(axis) if axis in result.variables else result
    return {str(name): labelled[name] for name in labelled.variables}
