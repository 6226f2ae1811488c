"""An index of a collection, as an object: what it is, and its entries as a table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from registry import IndexRecord

from .handle import Handle
from .reading.selection import Selection

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Index:
    """An index: which rows of a collection have which values of some columns.

    As :meth:`Collection.index` returns it; the entries are those of the version that the collection is at.
    """

    record: IndexRecord
    _handle: Handle

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(self.record.columns)

    def table(self, *, keys: bool = False) -> "pd.DataFrame":
        """Return its entries in the order of the rows, read from the registry alone.

        Parameters
        ----------
        keys
            Whether to tell of each entry the key of its partition (a column per key), and which of the partition's
            rows it has: ``start`` and ``stop``, the latter not included.

        Returns
        -------
        pandas.DataFrame
            A row per entry: runs of equal values, divided where parts of a partition end. The columns of the index;
            times are datetime64[ns].
        """
        import pandas as pd  # half a second, and seldom needed

        handle = self._handle
        selected = handle.select(Selection())
        entries = handle.registry.entries(handle.record, selected.version, self.record)
        columns: dict[str, Any] = {}
        for place, (name, kind) in enumerate(self.record.columns.items()):
            found = [values[place] for _, values in entries]
            columns[name] = np.array(found, object if kind == "text" else np.int64)
            if kind == "time":
                columns[name] = columns[name].view("M8[ns]")
        if not keys:
            return pd.DataFrame(columns)
        table = selected.rows
        places = table.places
        numbers = [places[rows.key, rows.part] for rows, _ in entries]
        before = table.starts - np.repeat(table.starts[np.cumsum(table.counts) - table.counts], table.counts)
        of_rows: dict[str, Any] = {
            # A column may be called as a key is, whose values it has.
            (f"key_{name}" if name in columns else name): [rows.key[place] for rows, _ in entries]
            for place, name in enumerate(table.names)
        }
        offsets = before[np.array(numbers, np.intp)]
        for name in ("start", "stop"):
            of_rows[name] = (offsets + [getattr(rows, name) for rows, _ in entries]).astype(np.int64)
        return pd.DataFrame({**{name: np.array(each, np.int64) for name, each in of_rows.items()}, **columns})

    def __repr__(self) -> str:
        how = self.record.function or "runs of equal values"
        columns = ", ".join(f"{name} ({kind})" for name, kind in self.record.columns.items())
        inputs = ", ".join(self.record.inputs.values())
        return f"<Index {self.name} of {self._handle.record.name}: {columns}; {how} of {inputs}>"
