"""Who has said what lies where, to be asked again where something of it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from registry import CollectionRecord, Registry

from ..errors import CorruptedDataError, NotFoundError, RegistryUnavailableError


@dataclass(frozen=True, eq=False)
class Listing:
    """A registry, and the version of a collection that it has listed. Plain data: tasks receive it pickled."""

    registry: Registry
    collection: CollectionRecord
    version: int
    under: tuple[tuple[CollectionRecord, int], ...] = ()
    """Of a view: what it is over, at the versions that were listed."""

    @contextmanager
    def asked_again(self) -> Iterator[None]:
        """Have data that is missing told from data that was given up since it was listed.

        Raises
        ------
        NotFoundError
            The collection was dropped, or the version has expired; or the registry is a standby, which lists what may
            have been given up.
        CorruptedDataError
            It is listed still, or nobody answers.
        """
        try:
            yield
        except CorruptedDataError as error:
            what = str(error).partition(";")[0]  # what to do is another thing
            try:
                notes = [self.registry.look_again(*each) for each in ((self.collection, self.version), *self.under)]
            except NotFoundError as gone:
                raise type(gone)(f"{gone}, since this was loaded: {what}") from error
            except RegistryUnavailableError:
                raise error from None
            if notes[0]:
                raise NotFoundError(f"{what}, and may have been given up: {notes[0]}") from error
            raise
