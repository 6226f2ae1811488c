"""A Postgres server for tests: run by the programs in a folder, with nothing in it, and nothing is kept of it.

Run as a script with that folder, it prints the URL of its database ``postgres`` once that answers, and ends when its
standard input is closed. It is reached by a socket of Unix, so no port has to be free. With the URL of another such
server behind the folder, it is a standby of that one.

Postgres refuses to run as root: it runs as ``nobody`` then, from a copy of the programs if that user cannot reach them.

Its files are in memory where that has room: each database is some hundred files, and a disk that others use as well
takes several times as long to copy and delete them.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "16MB",
    "fsync": "off",  # nobody reads it again
    "full_page_writes": "off",
    "autovacuum": "off",  # it would hold the databases that are cloned
    "deadlock_timeout": "100ms",  # tests wait for it
}


MEMORY, ROOM = Path("/dev/shm"), 2 * 2**30
"""A folder of which all is in memory, and the bytes that have to be free there: a server takes a tenth of them."""


def main() -> None:
    """Serve until standard input is closed."""
    with temporary_folder() as place, temporary_folder(quick_place()) as quick:
        programs = reachable(Path(sys.argv[1]), place)  # not in memory, where often nothing can be executed
        data = copied(programs, quick, sys.argv[2]) if sys.argv[2:] else initialized(programs, quick)
        with serving(programs, data, quick) as url:
            print(url, flush=True)
            sys.stdin.read()


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder that other users can enter, for the block."""
    with tempfile.TemporaryDirectory(prefix="zc-postgres-", dir=parent) as folder:
        place = Path(folder)
        place.chmod(0o755)  # they connect to what is there
        yield place


def quick_place() -> Path | None:
    """Return where files are written at once; None, the usual place, where there is no such one or it is too small."""
    try:
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    return MEMORY if os.access(MEMORY, os.W_OK) and free >= ROOM else None


def unprivileged() -> dict[str, Any]:
    """Return what has a subprocess run as a user whom Postgres accepts."""
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": [], "cwd": "/"}


def reachable(programs: Path, place: Path) -> Path:
    """Return the folder of the programs; of a copy of them where the user who is to run them may not."""
    try:
        subprocess.run([programs / "bin/initdb", "--version"], check=True, stdout=subprocess.DEVNULL, **unprivileged())
    except PermissionError:
        package = programs.parent
        copy = place / package.name / programs.name
        shutil.copytree(programs, copy, ignore=shutil.ignore_patterns("include"))
        for libraries in package.parent.glob(f"{package.name}.libs"):  # looked for where they are beside the package
            shutil.copytree(libraries, place / libraries.name)
        return copy
    return programs


def initialized(programs: Path, place: Path) -> Path:
    """Return the folder of a new cluster of databases, where whoever has an account may be anybody."""
    data = folders(place)
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"]
    command = [str(programs / "bin/initdb"), *options, f"--pgdata={data}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **unprivileged())
    return data


def copied(programs: Path, place: Path, primary: str) -> Path:
    """Return the folder of a copy of a server's cluster, which will follow it."""
    data = folders(place)
    options = ["--checkpoint=fast", "--no-sync", "--wal-method=stream", "--write-recovery-conf", f"--dbname={primary}"]
    command = [str(programs / "bin/pg_basebackup"), *options, f"--pgdata={data}"]
    subprocess.run(command, check=True, **unprivileged())
    return data


def folders(place: Path) -> Path:
    """Make the folder of a cluster, which is returned, and that of its sockets."""
    data, sockets = place / "data", place / "sockets"
    for folder in (data, sockets):
        folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
    data.chmod(0o700)
    return data


@contextmanager
def serving(programs: Path, data: Path, place: Path) -> Iterator[str]:
    """Serve a cluster of databases inside the block."""
    sockets, log = place / "sockets", place / "log"
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    command = [str(programs / "bin/postgres"), "-D", str(data), "-k", str(sockets), *settings]
    with log.open("w") as output, subprocess.Popen(command, stderr=output, **unprivileged()) as process:
        try:
            url = f"postgresql://postgres@/postgres?host={sockets}"
            while not answers(url):
                if process.poll() is not None:
                    sys.exit(f"Postgres has ended at once:\n{log.read_text()}")
                time.sleep(0.02)
            yield url
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)  # at once: what it has is thrown away


def answers(url: str) -> bool:
    """Whether a server takes connections."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


if __name__ == "__main__":
    main()
