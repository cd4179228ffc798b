"""The audit of a release that is exported: its corrected figures, and the bounds that it must reach."""

from __future__ import annotations

import polars as pl

from normloom.core.errors import ReleaseError
from normloom.core.table import Manifest
from normloom.settings.faces.audits import audit_name, audited_figures, bounds_of
from normloom.store.latest import released_key
from normloom.store.store import Store
from normloom.tasks.audit.bounds import missed


def audited(store: Store, release: Manifest) -> pl.DataFrame | None:
    """Return the figures of a release's audit, None if it was not audited.

    Raises ReleaseError if the newest audit of the system asks for bounds which these figures miss, or if the newest
    release has not been audited since.
    """
    newest = store.current(audit_name(release.system), "audit_figures")
    bounds = bounds_of(newest) if newest else []
    figures = audited_figures(store, release)
    if figures is None:
        if bounds and released_key(store, release.system) == (release.stage, release.key):
            raise ReleaseError(
                f"the release of {release.system} must reach {'; '.join(map(str, bounds))}, and has not been audited: "
                f"run normloom audit {release.system} with the options of the last audit"
            )
        return None
    rows = store.scan(figures.ref).collect()
    if lacking := list(missed(rows, bounds_of(figures))):
        raise ReleaseError(
            f"the release of {release.system} misses {len(lacking)} bounds of its audit: {'; '.join(lacking)}. "
            "More answers narrow the interval (--budget); an audit without --at-least sets no bound"
        )
    return rows
