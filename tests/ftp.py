"""A real server of FTP for tests: one per session, and a directory of its own for each test."""

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class FTPServer:
    """A running server."""

    url: str
    process: "subprocess.Popen[str]"

    storage_options: ClassVar[Mapping[str, str]] = {"username": "writer", "password": "testing"}
    """What fsspec needs to write there."""

    reading: ClassVar[Mapping[str, str]] = {"username": "reader", "password": "testing"}
    """What fsspec needs to read there."""

    def fresh_url(self) -> str:
        """A URL below which nothing is yet; nor is it a directory."""
        return f"{self.url}/{uuid.uuid4().hex}"

    def hang_up(self) -> None:
        """Have it close all connections, as servers do after a while."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        self.process.stdout.readline()


@contextmanager
def running_ftp_server(root: Path) -> Iterator[FTPServer]:
    """Start a server of a directory; it is gone at the end, and if this process dies."""
    # It needs modules that Python 3.12 has no more, and says so.
    script = Path(__file__).with_name("ftp_server.py")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script), str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield FTPServer(process.stdout.readline().strip(), process)
        # Leaving the block closes its standard input, which ends it.
