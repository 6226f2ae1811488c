"""An FTP server for tests, pyftpdlib's: run with a directory to serve, it prints its URL, and ends with its input.

``writer`` may do everything there, ``reader`` read. Each line of its input has it hang up on all who are connected.
"""

import logging
import sys
import threading

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

PASSWORD = "testing"


class Handler(FTPHandler):
    """Remembers who is connected."""

    authorizer = DummyAuthorizer()
    auth_failed_timeout = 0
    connected_now: "set[Handler]" = set()  # noqa: RUF012 - of all connections

    def on_connect(self) -> None:
        self.connected_now.add(self)

    def on_disconnect(self) -> None:
        self.connected_now.discard(self)


def main(root: str) -> None:
    """Serve a directory until standard input is closed."""
    logging.getLogger("pyftpdlib").addHandler(logging.NullHandler())  # without one, it prints each connection
    Handler.authorizer.add_user("writer", PASSWORD, root, perm="elradfmw")
    Handler.authorizer.add_user("reader", PASSWORD, root, perm="elr")
    server = FTPServer(("127.0.0.1", 0), Handler)
    hang_up = threading.Event()

    def serve() -> None:
        while True:
            server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)
            if hang_up.is_set():
                for connection in list(Handler.connected_now):
                    connection.close()
                hang_up.clear()
                print("done", flush=True)

    threading.Thread(target=serve, daemon=True).start()
    print(f"ftp://127.0.0.1:{server.address[1]}", flush=True)
    for _ in sys.stdin:
        hang_up.set()


if __name__ == "__main__":
    main(sys.argv[1])
