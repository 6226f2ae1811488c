"""An S3 server for tests: moto's, which notes every request, and makes requests meet to show which are concurrent.

Run as a script, it prints its URL once it answers, and ends when its standard input is closed. Below ``/_traffic``:

- ``PUT /_traffic?together=n`` forgets all requests, and from now on holds each one of objects (GET and PUT) until
  ``n`` of its method have been in flight at once; after ten seconds without that, nothing is held any more. The marker
  of a location is never held: it is asked for alone.
- ``GET /_traffic`` answers ``{"requests": [[method, path, query], …], "at_once": {method: the most in flight}}``.
"""

import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

MARKER = ".zcollection"

PATIENCE = 10.0
"""Seconds that requests wait for each other; only tests that fail see it pass."""


class NotingApplication:
    """A WSGI application that notes the requests that another one answers."""

    def __init__(self, answering: Callable[..., Iterable[bytes]]) -> None:
        self._answering = answering
        self._lock = threading.Lock()
        self._forget(together=1)

    def _forget(self, together: int) -> None:
        with self._lock:
            self._requests: list[tuple[str, str, str]] = []
            self._in_flight: Counter[str] = Counter()
            self._at_once: dict[str, int] = {}
            self._together = together
            self._met = {method: threading.Event() for method in ("GET", "PUT")}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path, query = (environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
        if path != "/_traffic":
            return self._note(method, path, query, lambda: self._answering(environ, start_response))
        if method == "PUT":
            self._forget(int(parse_qs(query)["together"][0]))
        with self._lock:
            answer = json.dumps({"requests": self._requests, "at_once": self._at_once}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
        return [answer]

    def _note(self, method: str, path: str, query: str, answer: Callable[[], Iterable[bytes]]) -> Iterable[bytes]:
        with self._lock:
            in_flight = self._in_flight
            self._requests.append((method, path, query))
            in_flight[method] += 1
            self._at_once[method] = max(self._at_once.get(method, 0), in_flight[method])
            met = None if path.endswith(MARKER) else self._met.get(method)
            if met and in_flight[method] >= self._together:
                met.set()
        if met and not met.wait(PATIENCE):
            met.set()
        try:
            return answer()
        finally:
            with self._lock:
                in_flight[method] -= 1


def main() -> None:
    """Serve until standard input is closed."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = NotingApplication(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
