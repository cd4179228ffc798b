"""The audit gate of a release: figures corrected by people's answers must reach their bounds."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from normloom.core.errors import ReleaseError
from normloom.core.table import Manifest
from normloom.history.commands import store_option
from normloom.store.store import Store
from normloom.tasks.audit.bounds import Bound

Unaudited = Literal["warn", "fail"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuditGate:
    """The bounds that a release's audit must reach; `unaudited` says what happens to a table without one.

    Only an audit of exactly this content counts, not one of an earlier release.
    """

    bounds: Sequence[Bound]
    unaudited: Unaudited = "warn"

    def hold(self, store: Store, table: Manifest) -> None:
        """Raise ReleaseError for a table whose audit misses a bound, or that needs an audit and has none."""
        from normloom.settings.faces.audits import audited_figures  # no command that reads needs it
        from normloom.tasks.audit.bounds import missed

        figures = audited_figures(store, table)
        command = f"normloom audit {shlex.quote(table.system)} --table {table.stage}{store_option(store.root)}"
        if figures is None:
            asked = "; ".join(map(str, self.bounds))
            said = f"{table.stage!r} must reach {asked}, and has not been audited: run {command}"
            if self.unaudited == "fail":
                raise ReleaseError(
                    f"{said}, then build again; the table is built, but not released. "
                    "To release it as it is: --set release.unaudited=warn"
                )
            log.warning("%s", said)
            return
        if lacking := list(missed(store.scan(figures.ref).collect(), self.bounds)):
            raise ReleaseError(
                f"{table.stage!r} misses {len(lacking)} bounds of release.at_least: {'; '.join(lacking)}; the table "
                f"is built, but not released. More answers narrow the interval: {command} --budget N"
            )
