"""What fsspec needs to reach the data is given where something is opened; of it the registry keeps no secret."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import intake_zcollection as izc
from intake_zcollection.drivers.source import ZCollectionSource
from registry.migrations import HEAD_REVISION
from registry.sql.engine import is_sqlite
from registry.sql.sqlite import file_of
from tests.conftest import make_grid
from tests.s3 import BUCKET, S3Server
from tests.sql import run_sql

DATA = make_grid(days=2)

SECRETS = {"key": "key-of-nobody", "secret": "secret-of-nobody", "token": "token-of-nobody"}

ELSEWHERE = {"endpoint_url": "http://127.0.0.1:9", "anon": True, "config_kwargs": {"retries": {"max_attempts": 0}}}
"""Options that lead to a port where nothing listens."""

Options = Mapping[str, Any]


def create(registry: izc.Registry, location: str, storage_options: Options | None) -> izc.Collection:
    return izc.create_collection(
        registry,
        "made/a",
        DATA,
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=location,
        storage_options=storage_options,
    )


def bytes_of(registry: izc.Registry) -> bytes:
    """All that the registry has: on disk, or in its tables."""
    if is_sqlite(registry._url):
        path = file_of(registry._url)
        found = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    else:
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        names = [name for (name,) in run_sql(registry, tables)]
        found = "".join(repr(run_sql(registry, f'SELECT * FROM "{name}"')) for name in names).encode()
    assert HEAD_REVISION.encode() in found
    return found


@pytest.fixture
def location(s3: S3Server) -> str:
    return f"{s3.fresh_url()}/deep"


@pytest.fixture
def reaching(s3: S3Server) -> Options:
    """Options that reach the server, with secrets."""
    return {**SECRETS, "endpoint_url": s3.endpoint_url}


# Keyed by prefix


@pytest.mark.parametrize(
    "keyed",
    [
        pytest.param(lambda url, options: options, id="flat"),
        pytest.param(lambda url, options: {url: options}, id="the location"),
        pytest.param(lambda url, options: {f"{url}/": options}, id="the location and a slash"),
        pytest.param(lambda url, options: {f"s3://{BUCKET}": options}, id="the bucket"),
        pytest.param(lambda url, options: {"s3://": options}, id="the protocol"),
        pytest.param(
            lambda url, options: {"s3://": ELSEWHERE, url: options, f"s3://{BUCKET}": ELSEWHERE}, id="the longest wins"
        ),
        pytest.param(
            lambda url, options: {f"{url}/deeper": ELSEWHERE, url[:-1]: ELSEWHERE, f"s3://{BUCKET}": options},
            id="whole names only",
        ),
        pytest.param(lambda url, options: {f"s3://{BUCKET}": options, "memory://": {"x": 1}}, id="of other storages"),
    ],
)
def test_options_may_be_keyed_by_prefix_wherever_something_is_opened(
    registry: izc.Registry,
    tmp_path: Path,
    location: str,
    reaching: Options,
    keyed: Callable[[str, Options], Options],
) -> None:
    options = keyed(location, reaching)
    create(registry, location, options).insert(DATA)
    for loaded in (
        izc.open_collection(registry, "made/a", storage_options=options).load(),
        izc.open_dataset(registry, "made/a", storage_options=options),
        ZCollectionSource(registry.url, "made/a", storage_options=options).read(),
    ):
        np.testing.assert_array_equal(loaded.ice.values, DATA.ice.values)


def test_options_of_other_prefixes_do_not_matter(registry: izc.Registry, tmp_path: Path) -> None:
    collection = create(registry, f"{tmp_path}/a", {f"s3://{BUCKET}": SECRETS})
    collection.insert(DATA)
    assert registry.collection("made/a").storage_options == {}
    np.testing.assert_array_equal(collection.load().ice.values, DATA.ice.values)


# What is recorded


@pytest.mark.parametrize("keyed", [False, True], ids=["flat", "keyed"])
def test_the_public_part_is_recorded_and_secrets_are_not(
    registry: izc.Registry, location: str, reaching: Options, keyed: bool
) -> None:
    public = {"endpoint_url": reaching["endpoint_url"], "region": "us-east-1", "anon": False}
    options = {**SECRETS, **public}
    collection = create(registry, location, {location: options} if keyed else options)
    collection.insert(DATA)
    assert registry.collection("made/a").storage_options == public
    for secret in SECRETS.values():
        assert secret.encode() not in bytes_of(registry)
        assert secret not in repr(collection)


def test_what_is_recorded_need_not_be_given_again(registry: izc.Registry, location: str, reaching: Options) -> None:
    create(registry, location, reaching).insert(DATA)
    for options in (SECRETS, {f"s3://{BUCKET}": SECRETS}):
        loaded = izc.open_dataset(registry, "made/a", storage_options=options)
        np.testing.assert_array_equal(loaded.ice.values, DATA.ice.values)


@pytest.mark.parametrize("keyed", [False, True], ids=["flat", "keyed"])
def test_the_driver_shows_no_secret(location: str, reaching: Options, keyed: bool) -> None:
    options = {location: reaching} if keyed else reaching
    source = ZCollectionSource("sqlite:///never/opened.db", "made/a", storage_options=options)
    for shown in (repr(source), source.yaml()):
        assert not any(secret in shown for secret in SECRETS.values())


def test_the_options_of_a_chain_are_recorded_without_secrets(
    registry: izc.Registry, tmp_path: Path, location: str, reaching: Options
) -> None:
    cache = {"cache_storage": f"{tmp_path}/cache"}
    create(registry, f"simplecache::{location}", {"s3": reaching, "simplecache": cache}).insert(DATA)
    assert not any(secret.encode() in bytes_of(registry) for secret in SECRETS.values())


# What is refused


@pytest.mark.parametrize(
    "location",
    ["s3://me:hunter2@bucket/x", "simplecache::s3://me:hunter2@bucket/x", "sftp://me:hunter2@127.0.0.1:9/bucket/x"],
)
def test_a_location_with_a_password_is_refused(registry: izc.Registry, location: str) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"location.* password") as refusal:
        create(registry, location, None)
    assert "hunter2" not in str(refusal.value)
    assert b"hunter2" not in bytes_of(registry)


@pytest.mark.parametrize("keyed", [False, True], ids=["flat", "keyed"])
def test_an_endpoint_with_a_password_is_refused(registry: izc.Registry, location: str, keyed: bool) -> None:
    options = {"endpoint_url": "http://me:hunter2@127.0.0.1:9", "anon": True}
    with pytest.raises(izc.InvalidInputError, match=r"endpoint_url.* password") as refusal:
        create(registry, location, {location: options} if keyed else options)
    assert "hunter2" not in str(refusal.value)
    assert b"hunter2" not in bytes_of(registry)


# What cannot be reached


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(ELSEWHERE, id="nothing listens"),
        pytest.param({"profile": "of-nobody", **ELSEWHERE}, id="no such profile"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_named(registry: izc.Registry, location: str, options: Options) -> None:
    with pytest.raises(izc.StorageUnavailableError, match=location):
        create(registry, location, options)
    with pytest.raises(izc.NotFoundError):
        registry.collection("made/a")


def test_a_bucket_that_is_not_there_is_named(registry: izc.Registry, s3: S3Server) -> None:
    with pytest.raises(izc.StorageUnavailableError, match="s3://no-such-bucket/a"):
        create(registry, "s3://no-such-bucket/a", s3.storage_options)


# Two places of one protocol


@pytest.mark.parametrize("same_bucket", [False, True], ids=["another bucket", "another endpoint"])
def test_a_copy_to_another_place_of_one_protocol_takes_keyed_options_only(
    registry: izc.Registry, location: str, reaching: Options, same_bucket: bool
) -> None:
    collection = create(registry, location, reaching)
    collection.insert(DATA)
    prefix = f"s3://{BUCKET}" if same_bucket else "s3://elsewhere"
    options = {**ELSEWHERE, **SECRETS} if same_bucket else reaching
    with pytest.raises(izc.InvalidInputError, match=rf"key, secret.* does not say .*{prefix}.*'{prefix}': ") as refusal:
        collection.copy("made/b", f"{prefix}/copy", storage_options=options)
    assert not any(secret in str(refusal.value) for secret in SECRETS.values())
    with pytest.raises(izc.StorageUnavailableError):  # it is tried there
        collection.copy("made/b", f"{prefix}/copy", storage_options={prefix: options})


def test_a_copy_within_one_bucket_takes_flat_options(
    registry: izc.Registry, location: str, reaching: Options, tmp_path: Path
) -> None:
    collection = create(registry, location, reaching)
    collection.insert(DATA)
    near = collection.copy("made/b", f"{location}_copy", storage_options=reaching)
    far = near.copy("made/c", f"{tmp_path}/c", storage_options={"auto_mkdir": True})
    np.testing.assert_array_equal(far.load().ice.values, DATA.ice.values)


def test_files_of_several_places_take_keyed_options_only(registry: izc.Registry, tmp_path: Path) -> None:
    collection = create(registry, f"{tmp_path}/a", None)
    files = [f"{tmp_path}/here.nc", "simplecache::s3://one/a.nc", "s3://two/b.nc"]
    with pytest.raises(izc.InvalidInputError, match=r"s3://one and s3://two: .*'s3://one': {…}, 's3://two': {…}"):
        collection.insert(files, storage_options=SECRETS)
    with pytest.raises(izc.InvalidInputError, match="https://one and https://two"):
        collection.insert(["https://one/a.nc", "https://two/b.nc"], storage_options={"headers": SECRETS})
