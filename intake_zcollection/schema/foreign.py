"""What xarray holds and a collection does not keep: dates of cftime, dtypes of pandas; and how they are converted."""

from collections.abc import Iterable
from typing import Any

import xarray as xr

from ..errors import InvalidInputError


def check_calendars(dataset: xr.Dataset, names: Iterable[str]) -> None:
    """Raise InvalidInputError if any of these variables, lazy or not, hold dates as objects of cftime."""
    found = {name: calendar for name in names if (calendar := calendar_of(dataset.variables[name])) is not None}
    if not found:
        return
    each = ", ".join(f"variable {name} ({calendar})" for name, calendar in found.items())
    raise InvalidInputError(
        f"{each}: dates of another calendar, or as objects of cftime, cannot be kept, and become datetime64 by "
        "data.assign({name: data.variables[name].astype(str).astype('datetime64[ns]') for name in "
        f"{list(found)}}}). Dates that datetime64 lacks, such as 30 February, are refused there: "
        "data.convert_calendar('standard', align_on='date') drops them first"
    )


def calendar_of(variable: xr.Variable) -> str | None:
    """Return the calendar of a variable that holds objects of cftime; None for any other.

    What was opened from a file is known by its encoding, and not read. Of objects that dask has and nothing is said
    about, the first is computed: text and dates are told apart by nothing else.
    """
    if variable.dtype != object or variable.size == 0:
        return None
    if " since " in str(variable.encoding.get("units", "")):
        return str(variable.encoding.get("calendar", "standard"))
    if variable._in_memory:  # xarray has no public word for it
        return _calendar_of_values(variable.values.flat)
    if variable.chunks is None or "dtype" in variable.encoding:
        return None
    return _calendar_of_values(variable[(0,) * variable.ndim].values.flat)


def _calendar_of_values(values: Iterable[Any]) -> str | None:
    for value in values:
        if hasattr(value, "calendar"):
            return str(value.calendar)
        if isinstance(value, str):
            return None
    return None


def pandas_remedy(name: str, variable: xr.Variable) -> str:
    """Return how a variable of one of pandas' own dtypes becomes one of numpy's."""
    if getattr(variable.dtype, "tz", None) is None:
        return "convert it to a dtype of numpy's"
    if variable.dims == (name,):
        return f"convert it to UTC, data.assign_coords({name}=data.indexes[{name!r}].tz_convert(None))"
    return (
        f"convert it to UTC, data.assign({name}=(data[{name!r}].dims, "
        f"pandas.DatetimeIndex(data[{name!r}].data).tz_convert(None)))"
    )
