"""Putting a group down: what every worker does, whatever the verb."""

from pathlib import Path

from registry import Written

from ..storage import layout
from ..storage.write import write_fragment
from .plan import Arrays, Job, Result

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_machine() -> str | None:
    """Return what tells this machine's kernel from all others; None where there is no telling."""
    try:
        return _BOOT_ID.read_text()
    except OSError:
        return None


def put_down(coordinator: str | None, job: Job, arrays: Arrays) -> Result:
    """Write one group below a name that no other attempt has, and return what was written.

    Runs in a worker, which never uses the registry. The coordinating machine sees to it by itself that what its
    processes wrote survives a power cut, once for all groups; another machine has to do it here.
    """
    target = job.target
    content = job.content(arrays)
    attempt = layout.new_attempt()
    store, part = target.location.store, content.part
    nbytes = write_fragment(target.location, target.path + attempt, target.schema, content.values, part.rows)
    if coordinator is None or coordinator != this_machine():
        store.sync()
    uid = target.uid + attempt
    return Result(
        Written(part.key, target.layer, uid, part.rows, nbytes, target.schema_version, *part.bounds, part.unique)
    )
