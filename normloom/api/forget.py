"""Take rows back, and remove the tables and models that hold them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from normloom.api.look import open_store
from normloom.core.errors import StoreError
from normloom.core.rows.text import counted
from normloom.history.removal.forget import Asked, ask
from normloom.history.removal.forget import forget as forget_rows
from normloom.history.removal.purge import purge as purge_store
from normloom.store.forgotten import Purging
from normloom.store.store import Store


def forget(
    *rows: str,
    texts: Sequence[str] = (),
    reason: str = "",
    store: str | os.PathLike[str] | Store = "store",
    dry_run: bool = False,
) -> Asked:
    """Add rows, by id, and texts to a store's deny list, and return everything derived from them.

    The next build drops them at its sources and rebuilds what read them. With `dry_run` nothing is added.
    Raises UsageError for an unknown row or a missing reason.
    """
    where = store if isinstance(store, Store) else open_store(store)
    asked = ask(where, rows, texts)
    if not dry_run:
        forget_rows(where, asked, reason=reason)
    return asked


def purge(
    *, store: str | os.PathLike[str] | Store = "store", also_newest: bool = False, texts: Sequence[str] = ()
) -> Purging:
    """Remove the tables and model files that hold forgotten rows, scan the remaining files and return the record.

    The scan looks for `texts` within longer ones too.

    Raises StoreError if the scan finds any of them, or if a table that no build has replaced holds some; with
    `also_newest` such a table is removed too.
    """
    purged = purge_store(store if isinstance(store, Store) else open_store(store), also_newest=also_newest, texts=texts)
    if purged.found:
        left = counted(len(purged.found), "file")
        raise StoreError(f"forgotten rows or texts are left in {left}: {'; '.join(purged.found)}")
    return purged
