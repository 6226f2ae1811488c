"""Leases: what a writer holds lapses unless a thread of its process renews it."""

import datetime as dt
import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


def keep_renewing(name: str, lease: dt.timedelta, renew: Callable[[], bool], stopped: threading.Event) -> None:
    """Have a thread renew a lease, three times as often as needed, until it is stopped or there is nothing to renew.

    Parameters
    ----------
    name
        What is renewed, as the thread is called and as an operator is told.
    lease
        How long it lasts.
    renew
        Renews it, and returns whether there is anything to renew from then on.
    stopped
        Is set when it need not be renewed any more.
    """

    def run() -> None:
        while not stopped.wait(lease.total_seconds() / 3):
            try:
                if not renew():
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is: a thread that ended would renew nothing any more
                # The next try is a third of a lease away; if all fail, the fence decides.
                logger.warning("%s could not be renewed: %s", name, error)

    threading.Thread(target=run, name=name, daemon=True).start()
