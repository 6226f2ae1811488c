"""Files to insert, by their paths or URLs: opened by xarray, and told apart by what is in them."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from ..errors import InvalidInputError
from ..storage.location import check_no_password, file_system

_TAGS = ("md5Hash", "Content-MD5", "ETag", "etag")
"""What file systems call that which changes with a file's content, the surest first."""

_BLOCK = 2**22
"""How many bytes are read at a time."""


@dataclass(frozen=True)
class File:
    """A file that xarray opens, here or wherever. Plain data: workers receive it pickled."""

    url: str
    """A path or URL, by which it is known as a source."""
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str | os.PathLike[str], storage_options: Mapping[str, Any]) -> "File":
        """Return the file at a path or URL; paths that differ only in spelling (``./a.nc``) are one.

        Raises InvalidInputError if there is a password in it.
        """
        url = os.fspath(path)
        check_no_password("path of a file", url)
        return cls(url if "://" in url or "::" in url else str(PurePath(url)), storage_options)

    def __call__(self) -> xr.Dataset:
        """Return its dataset, lazily; the format is xarray's to guess."""
        fs, path = file_system(self.url, self.storage_options)
        # A path can be opened by more engines than a file object; without the cache, what is read is not kept.
        local = type(fs) is LocalFileSystem
        return xr.open_dataset(path if local else fs.open(path, "rb"), cache=False)

    @cached_property
    def fingerprint(self) -> str:
        """Its size, and what tells its content from any other: from its file system, or by reading it once.

        Raises
        ------
        InvalidInputError
            It is no file.
        OSError
            It cannot be read.
        """
        fs, path = file_system(self.url, self.storage_options)
        fs.invalidate_cache(path)  # a listing from before a correction would tell the tag from before
        info = fs.info(path)
        if info.get("type") == "directory":
            raise InvalidInputError(
                f"{self.url} is a directory, and no file: of a Zarr store, insert lambda: xarray.open_zarr(path, "
                "chunks=None), with sources=[Source(path, fingerprint)] if it is to be remembered; of files, a list"
            )
        for name in _TAGS:
            tag = info.get(name)
            if tag and not str(tag).startswith("W/"):  # a weak one may stay the same for other bytes
                return f"size={info.get('size')} {name.lower()}={str(tag).strip(chr(34))}"
        digest, size = hashlib.sha256(), 0
        with fs.open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                size += len(block)
        return f"size={size} sha256={digest.hexdigest()}"
