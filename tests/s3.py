"""A real S3 for tests: one server per session, a prefix of its own for each test, and the requests it was sent."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3

BUCKET = "bucket"
SECRET = "testing"


@dataclass
class Traffic:
    """What a server was asked for: ``(method, key, query)``, and how many requests of a method were in flight at once.

    Keys are relative to the prefix that was watched.
    """

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    at_once: dict[str, int] = field(default_factory=dict)

    def keys(self, method: str) -> list[str]:
        """The keys that one method was used on, sorted."""
        return sorted(key for made, key, _ in self.requests if made == method)


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket."""

    endpoint_url: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec needs to reach it."""
        return {"key": "testing", "secret": SECRET, "endpoint_url": self.endpoint_url}

    @property
    def client(self) -> Any:
        """Another way to it than fsspec's, to look at what is there."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key=SECRET,
        )

    def fresh_url(self) -> str:
        """A URL below which nothing is yet."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def keys(self, url: str) -> set[str]:
        """The keys of all objects below a URL, relative to it."""
        prefix = url.removeprefix(f"s3://{BUCKET}/") + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())}

    @contextmanager
    def traffic(self, url: str, together: int = 1) -> Iterator[Traffic]:
        """Collect the requests made inside the block, at its end.

        A request of an object is answered once ``together`` of its method are in flight.
        """
        traffic = Traffic()
        self._control("PUT", f"?together={together}")
        yield traffic
        answer = self._control("GET")
        root = "/" + url.removeprefix("s3://") + "/"
        traffic.requests += [(method, path.removeprefix(root), query) for method, path, query in answer["requests"]]
        traffic.at_once.update(answer["at_once"])
        self._control("PUT", "?together=1")

    def _control(self, method: str, query: str = "") -> Any:
        with urlopen(Request(f"{self.endpoint_url}/_traffic{query}", method=method)) as answer:
            return json.load(answer)


@contextmanager
def running_server() -> Iterator[S3Server]:
    """Start a server with an empty bucket; it is gone at the end, and if this process dies."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = S3Server(process.stdout.readline().strip())
        server.client.create_bucket(Bucket=BUCKET)
        yield server
        # Leaving the block closes its standard input, which ends it.
