"""A proxy before a Postgres server that loses the connection of a transaction: before its COMMIT is there, or after."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import psycopg
from sqlalchemy.engine import URL, make_url

Moment = Literal["before", "during", "after"]
"""When the connection is lost: the server has no COMMIT yet, has just got it, or has answered, which nobody hears."""

COMMIT, ROLLBACK = b"COMMIT\0", b"ROLLBACK\0"


class Proxy:
    """Connections to a server by TCP, of which some are lost."""

    def __init__(self, reach: Callable[[], socket.socket]) -> None:
        self._reach = reach
        self._words: bytes | None = None
        self._moment: Moment = "before"
        self._clients: list[socket.socket] = []
        self.lost = 0
        """How many connections were lost."""

    def lose(self, moment: Moment, words: str) -> None:
        """Lose the connection at the COMMIT of the next transaction that has a statement with these words."""
        self._words, self._moment = words.encode(), moment

    def cut(self) -> None:
        """Lose all connections that there are."""
        while self._clients:
            with suppress(OSError):  # it has gone by itself
                self._clients.pop().shutdown(socket.SHUT_RDWR)
                self.lost += 1

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._pass_on, args=(client, self._reach()), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        unheard, answered = threading.Event(), threading.Event()
        threading.Thread(target=_answer, args=(server, client, unheard, answered), daemon=True).start()
        sent = b""  # of this transaction
        with _closed(client), _closed(server):
            while data := client.recv(1 << 16):
                sent += data
                if sent.endswith(COMMIT) and self._words is not None and self._words in sent:
                    self._words = None
                    self.lost += 1
                    if self._moment != "before":
                        unheard.set()
                        server.sendall(data)
                    if self._moment == "after":
                        answered.wait(60)
                    client.shutdown(socket.SHUT_RDWR)
                    if self._moment == "during":
                        answered.wait(60)  # a server that is left while it commits goes on; it is left after that
                    return
                if sent.endswith((COMMIT, ROLLBACK)):
                    sent = b""
                server.sendall(data)


@contextmanager
def _closed(connection: socket.socket) -> Iterator[None]:
    """Close a connection at the end, of which another thread may be reading."""
    with connection, suppress(OSError):
        try:
            yield
        finally:
            connection.shutdown(socket.SHUT_RDWR)


def _answer(server: socket.socket, client: socket.socket, unheard: threading.Event, answered: threading.Event) -> None:
    with suppress(OSError):
        while (data := server.recv(1 << 16)) and not unheard.is_set():
            client.sendall(data)
    answered.set()
    if not unheard.is_set():
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _address(url: URL) -> Callable[[], socket.socket]:
    """Return what connects to the server of a URL, wherever that listens."""
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        host, port = connection.info.host, connection.info.port

    def reach() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    return reach


@contextmanager
def running_proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy before the server of a URL; yield it, and the URL of the same database through it."""
    direct = make_url(url)
    proxy = Proxy(_address(direct))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        through = direct.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=listener.getsockname()[1])
        through = through.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})  # it reads what is said
        yield proxy, through.render_as_string(hide_password=False)
