"""Which tables depend on a table that is no longer the newest of its stage."""

from __future__ import annotations

from normloom.core.table import TableRef
from normloom.store.forgotten import holding
from normloom.store.store import Store


def stale_stages(store: Store, system: str) -> dict[str, str]:
    """Return why each stale stage of a system is stale: what its newest table reads has been rebuilt since.

    A table whose input was rebuilt with the same content is not stale. One that holds forgotten rows is.
    """
    tables = {manifest.stage: manifest for manifest in store.newest(system)}
    held = holding(store)
    found = {stage: "holds forgotten rows" for stage, table in tables.items() if (system, stage, table.key) in held}

    def reason(stage: str) -> str:
        if stage not in found:
            found[stage] = ""  # so that it ends if stages of different flows read each other
            reasons = (_of_input(ref) for ref in (*tables[stage].inputs, *tables[stage].sides))
            found[stage] = next(filter(None, reasons), "")
        return found[stage]

    def _of_input(ref: TableRef) -> str:
        own = ref.system == system
        upstream = tables.get(ref.stage) if own else store.current(ref.system, ref.stage)
        if upstream is None:
            return ""
        if upstream.content != ref.content:
            return f"{ref.known_to(system)} has been rebuilt"
        return f"{ref.stage} is stale" if own and reason(ref.stage) else ""

    for stage in tables:
        reason(stage)
    return {stage: why for stage, why in found.items() if why}
