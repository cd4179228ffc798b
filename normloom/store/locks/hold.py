"""What a process holds while it removes from a store, and removals that count only as long as it does.

On a disk the kernel keeps a lock, however long its holder sleeps. In object storage a lease runs out, and a removal
that arrives later would take away what a build has come to rely on. So it is sent as a signed request which the storage
refuses, by its own clock, once the lease may have run out, and which names the entity tag that the object had.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.store.locks.lease import SECONDS, Lease

_PAUSES = (0.1, 0.3, 1.0, 3.0)  # seconds before a removal that was not answered, or came late, is sent again
_UNTIL_ANSWERED = 60  # seconds
_GONE, _WRITTEN, _FORBIDDEN, _SLOW_DOWN, _BROKEN = {200, 204, 404}, 412, 403, 429, 500


@dataclass(frozen=True)
class Hold:
    """The leases that keep others from a part of a store; none on a disk, where the kernel's locks do."""

    leases: tuple[Lease, ...] = ()

    @classmethod
    def of(cls, holds: Iterable[Hold]) -> Hold:
        """Return all that several hold."""
        return cls(tuple(lease for hold in holds for lease in hold.leases))

    def require(self) -> None:
        """Renew the leases; raises StoreError if another has taken one over."""
        for lease in self.leases:
            lease.require()

    def remove(self, path: Path) -> None:
        """Remove a file, or a directory and all in it; a missing one is removed already.

        Raises StoreError if a lease is lost, or if another process has written the object meanwhile.
        """
        if isinstance(path, ObjectPath):
            for one in [path] if path.is_file() else path.rglob("*"):
                self._remove(one)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)  # and say what cannot be removed
        else:
            path.unlink(missing_ok=True)

    def _remove(self, path: ObjectPath) -> None:
        for lease in self.leases:
            if lease.path == path:
                lease.rest()  # or it would be written meanwhile
        said, bare = "", False
        for pause in _PAUSES:
            tag = _tag(path)
            if tag is None:
                return
            status, said = _send(self._signed(path), tag.strip('"') if bare else tag)
            if status in _GONE:
                return
            if status == _WRITTEN and _tag(path) == tag and not bare:
                bare = True  # compared without quotes, as Ceph does
                continue
            if status == _WRITTEN:
                raise StoreError(f"another process has written {path}: it and what follows is not removed")
            if status and status not in {_FORBIDDEN, _SLOW_DOWN} and status < _BROKEN:
                break
            time.sleep(pause)
            self.require()
        raise StoreError(f"{path} cannot be removed: the object storage says {said}; rerun this to resume")

    def _signed(self, path: ObjectPath) -> str:
        """Return the address of a removal that the storage refuses once a lease may have run out."""
        import obstore

        for _ in range(2):
            ends = min(lease.until - lease.ahead for lease in self.leases)
            if (seconds := int(ends - time.time())) >= 1:
                within = timedelta(seconds=seconds)
                address = str(path.asked(lambda within=within: obstore.sign(path.bucket, "DELETE", path.key, within)))  # type: ignore[misc]  # bound
                if _signed_at(address) + seconds <= ends:  # else this process slept before it signed
                    return address
            self.require()
        raise StoreError(
            f"{path} is not removed: the lease is too short for the clocks of this machine and of the storage "
            f"({max(lease.ahead for lease in self.leases):.0f} s apart); set the clock, or {SECONDS} to more"
        )


def _tag(path: ObjectPath) -> str | None:
    try:
        return str(path.asked(lambda: path.bucket.head(path.key))["e_tag"])
    except FileNotFoundError:
        return None


def _signed_at(address: str) -> float:
    moment = parse_qs(urlsplit(address).query)["X-Amz-Date"][0]
    return datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _send(address: str, tag: str) -> tuple[int, str]:
    """Return the status of a removal, 0 if none came, and what it means; without the address, which has a key id."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    request = Request(address, method="DELETE", headers={"If-Match": tag})  # noqa: S310  # the client's own endpoint
    try:
        with urlopen(request, timeout=_UNTIL_ANSWERED) as answer:  # noqa: S310  # as above
            return answer.status, ""
    except HTTPError as error:
        with error:
            return error.code, f"{error.code} {error.reason}"
    except (URLError, OSError) as error:
        return 0, str(getattr(error, "reason", error))
