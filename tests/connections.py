"""The connections to registries that somebody has taken from their pools, and should have given back."""

import time
import weakref

import sqlalchemy as sa

_pools = weakref.WeakSet[sa.Pool]()


@sa.event.listens_for(sa.Engine, "engine_connect")
def _note(connection: sa.Connection) -> None:
    _pools.add(connection.engine.pool)  # here, for an engine that is disposed of has another one


def kept_connections(patience: float = 5) -> list[str]:
    """Return the pools that still miss connections after some seconds, in which other threads may end; each once."""
    end = time.monotonic() + patience
    # What is given back after a registry was closed is one more than its pool knows of: fewer than none.
    while (left := [pool for pool in _pools if isinstance(pool, sa.QueuePool) and pool.checkedout() > 0]) and (
        time.monotonic() < end
    ):
        time.sleep(0.005)
    _pools.difference_update(left)  # or the next test would be told of them
    return [pool.status() for pool in left]
