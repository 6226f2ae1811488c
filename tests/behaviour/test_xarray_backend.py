"""xarray's own tests of its backends, of a collection: what is inserted comes back identical, lazily, and indexable.

They lie in xarray's wheel, and are run as they are. Those that fail by intent stand here, each with the reason: tests
of data that is refused by name say so, and tests of what a collection does not have are None. Not run at all are the
classes of a file format: groups, appending, regions, consolidation and chunk encodings of files.
"""

# mypy: disable-error-code="assignment"
# (A test of the base classes is taken away by setting its name to None.)

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr
from xarray.tests.test_backends import CFEncodedBase

import intake_zcollection as izc

pytestmark = pytest.mark.one_engine("sqlite", "the tests are xarray's, of what is read and written")

# Importing xarray's tests turns this on for all others of the process, which open files as users do.
xr.set_options(warn_for_unclosed_files=False)

PART, ROW = "part_of_test", "row_of_test"


def with_axis(data: xr.Dataset) -> tuple[xr.Dataset, str]:
    """A dataset with what a collection needs, and the name of its axis.

    Partitions of two rows along the first dimension; the labels of this dimension are the axis if they can be, and
    otherwise the numbers of rows.
    """
    dimension = next(iter(data.sizes))
    rows = np.arange(data.sizes[dimension])
    data = data.assign({PART: (dimension, rows // 2)})
    labels = data.variables.get(dimension)
    if labels is not None and labels.dtype.kind in "iM" and bool(np.all(labels.values[1:] > labels.values[:-1])):
        return data, str(dimension)
    return data.assign({ROW: (dimension, rows)}), ROW


def refused(name: str, why: str) -> Any:
    """One of xarray's tests, with data that no collection takes: it is refused, with these words."""
    test = getattr(CFEncodedBase, name)

    @functools.wraps(test)
    def refuse(self: Any, *arguments: Any, **options: Any) -> None:
        with pytest.raises(izc.InvalidInputError, match=why):
            test(self, *arguments, **options)

    return refuse


class TestCollection(CFEncodedBase):
    @pytest.fixture(autouse=True)
    def _place(self, registry: izc.Registry) -> None:
        self.registry, self.numbers = registry, itertools.count()

    @pytest.fixture(params=["s", "ms", "us", "ns"])
    def time_unit(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture(params=[True, False])
    def use_dask(self, request: pytest.FixtureRequest) -> bool:
        return request.param

    @contextlib.contextmanager
    def roundtrip(
        self,
        data: xr.Dataset,
        save_kwargs: Mapping[str, Any] | None = None,
        open_kwargs: Mapping[str, Any] | None = None,
        allow_cleanup_failure: bool = False,
    ) -> Iterator[xr.Dataset]:
        options = dict(open_kwargs or {})
        options.pop("decode_timedelta", None)  # they come back in the units that they were given in, always
        if options.pop("decode_coords", True) is False or options.pop("decode_cf", True) is False:
            pytest.skip("so far it passes; a collection has no view of what is stored, before it is decoded")
        data = data.copy()
        for name, encoding in (save_kwargs or {}).get("encoding", {}).items():
            data[name].encoding = data[name].encoding | encoding
        data, axis = with_axis(data)
        name = f"made/c{next(self.numbers)}"
        collection = izc.create_collection(
            self.registry, name, data, axis=axis, partitioning=izc.Sequence((PART,)), location=f"memory://xarray/{name}"
        )
        collection.insert(data)
        loaded = collection.load(**{"chunks": None} | options).drop_vars([PART, ROW], errors="ignore")
        # The tests of xarray's backends know that labels are read at opening; here this is the first use.
        assert all(index.to_pandas_index() is not None for index in loaded.xindexes.values())
        yield loaded

    # What a collection does not have

    test_write_store = None  # the store that a backend dumps to is no interface of ours
    test_load_async = None  # reading is not asynchronous: it is done by threads
    test_append_write = None  # to add variables to a file
    test_append_overwrite_values = None  # to overwrite values in a file: nothing is ever overwritten
    test_append_with_invalid_dim_raises = None  # to append to a file
    test_encoding_kwarg = None  # there is no encoding=: a template's encoding makes the schema
    test_default_fill_value = None  # likewise; and doubles are not made floats of by an encoding
    test_encoding_unlimited_dims = None  # netCDF's
    test_encoding_kwarg_fixed_width_string = None  # arrays of characters are netCDF's, Zarr has text
    test_roundtrip_string_encoded_characters = None  # likewise
    test_roundtrip_coordinates_with_space = None  # it has no dimension, and so no rows
    test_roundtrip_example_1_netcdf = None  # it needs netCDF4, and a file that is not in the wheel
    test_coordinate_variables_after_iris_roundtrip = None  # it is about iris
    test_grid_mapping_and_bounds_are_coordinates_after_dataarray_roundtrip = None  # what is a coordinate is recorded

    # What is refused

    test_roundtrip_None_variable = refused("test_roundtrip_None_variable", "variable name None")  # noqa: N815 - xarray's name
    test_roundtrip_object_dtype = refused("test_roundtrip_object_dtype", "variable floats is object")
    test_roundtrip_stringdtype_nulls = refused(
        "test_roundtrip_stringdtype_nulls", "the first of them None, are no text"
    )
    test_roundtrip_cftime_datetime_data = refused("test_roundtrip_cftime_datetime_data", "dates of another calendar")
    test_roundtrip_bytes_with_fill_value = refused("test_roundtrip_bytes_with_fill_value", "variable x is object")
    test_roundtrip_string_with_fill_value_nchar = refused(
        "test_roundtrip_string_with_fill_value_nchar", "text has no _FillValue"
    )
    test_roundtrip_empty_vlen_string_array = refused("test_roundtrip_empty_vlen_string_array", "it has no rows")

    @pytest.mark.parametrize("fill_value", [np.int8(-1), np.uint8(255), -1, 255])
    def test_roundtrip_unsigned(self, fill_value: Any) -> None:  # what plain xarray would warn of is refused too
        encoding = {"_FillValue": fill_value, "_Unsigned": "true", "dtype": "i1"}
        data = xr.Dataset({"x": ("t", np.array([0, 1, 254, np.nan], "f4"), {}, encoding)})
        with pytest.raises(izc.InvalidInputError, match=r"variable x .* '_Unsigned'"), self.roundtrip(data):
            pass

    def test_invalid_dataarray_names_raise(self) -> None:  # with another error than netCDF's
        for name in (0, (4, 5), True, ""):
            data = xr.Dataset({name: xr.DataArray(np.zeros((2, 2)))})
            with pytest.raises(izc.InvalidInputError, match="the variable name"), self.roundtrip(data):
                pass

    def test_multiindex_not_implemented(self) -> None:  # with another error, and what it was made of is stored
        data = xr.Dataset(coords={"y": ("x", [1, 2]), "z": ("x", ["a", "b"])}).set_index(x=["y", "z"])
        with pytest.raises(izc.InvalidInputError), self.roundtrip(data):
            pass
        with self.roundtrip(data.reset_index("x")) as actual:
            xr.testing.assert_identical(actual, data.reset_index("x"))

    # What is checked in part

    @pytest.mark.parametrize("dtype", ["f8", "f4"])
    def test_roundtrip_mask_and_scale(self, dtype: str) -> None:  # nobody sees it encoded
        encoding = {"_FillValue": -1, "add_offset": np.dtype(dtype).type(10), "scale_factor": np.dtype(dtype).type(0.1)}
        values = np.array([np.nan, np.nan, 10, 10.1, 10.2], dtype)
        data = xr.Dataset({"x": ("t", values, {}, encoding | {"dtype": "i2"})})
        with self.roundtrip(data) as actual:
            xr.testing.assert_allclose(actual, data)
            assert actual.x.dtype == dtype
            assert actual.x.encoding["_FillValue"] == -1

    def test_dataset_caching(self) -> None:  # what was read is kept, always: there is no cache=False
        with self.roundtrip(xr.Dataset({"foo": ("x", [5, 6, 7])})) as actual:
            assert not actual.foo.variable._in_memory
            assert actual.foo.values.tolist() == [5, 6, 7]
            assert actual.foo.variable._in_memory

    def test_coordinate_variables_after_dataset_roundtrip(self) -> None:  # coordinates are those that were inserted
        original = self._create_cf_dataset()
        with self.roundtrip(original) as actual:
            xr.testing.assert_equal(actual, original)

    def test_string_object_warning(self) -> None:  # objects in dask are checked to be text, so there is no warning
        original = xr.Dataset({"x": ("y", np.array(["foo", "bar"], dtype=object))}).chunk()
        with self.roundtrip(original) as actual:
            xr.testing.assert_identical(original, actual)
