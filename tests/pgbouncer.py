"""A real pgbouncer before a Postgres server: it lends a connection of the server for one transaction at a time."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.postgres import connect
from tests.postgres_server import answers, unprivileged

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed (apt-get install pgbouncer): no pooler is tried"
)

SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
pool_mode = transaction
default_pool_size = {size}
listen_addr =
listen_port = 6432
unix_socket_dir = {place}
auth_type = trust
auth_file = {place}/users
admin_users = postgres
query_wait_timeout = 20
logfile = {place}/log
"""


@contextmanager
def running_pgbouncer(url: str, *, size: int) -> Iterator[str]:
    """Run a pooler with some connections to the server of a URL; yield the URL of the same database through it."""
    direct = make_url(url)
    with connect(direct) as connection:
        host, port, user = connection.info.host, connection.info.port, connection.info.user
    with tempfile.TemporaryDirectory(prefix="zc-pgbouncer-") as name:
        place = Path(name)
        place.chmod(0o777)
        (place / "users").write_text(f'"{user}" "{direct.password or ""}"\n')
        settings = place / "settings.ini"
        settings.write_text(SETTINGS.format(host=host, port=port, place=place, size=size))
        with subprocess.Popen([str(PROGRAM), str(settings)], stderr=subprocess.DEVNULL, **unprivileged()) as process:
            try:
                through = direct.set(host=None, port=None).update_query_dict({"host": name, "port": "6432"})
                address = through.render_as_string(hide_password=False)
                while not answers(address):
                    assert process.poll() is None, (place / "log").read_text()
                    time.sleep(0.01)
                yield address
            finally:
                process.kill()
