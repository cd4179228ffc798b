"""Which tables stand on a table that is no longer the newest of its stage."""

from __future__ import annotations

from collections.abc import Iterable

from normloom.table import Manifest, TableRef


def stale_stages(newest: Iterable[Manifest]) -> dict[str, str]:
    """Return why each stale stage is stale, given the newest table of every stage of a system.

    A table whose input was made again with the same content is not stale.
    """
    tables = {manifest.stage: manifest for manifest in newest}
    found: dict[str, str] = {}

    def reason(stage: str) -> str:
        if stage not in found:
            found[stage] = ""  # so that it ends where stages of different flows read each other
            reasons = (_of_input(ref) for ref in (*tables[stage].inputs, *tables[stage].sides))
            found[stage] = next(filter(None, reasons), "")
        return found[stage]

    def _of_input(ref: TableRef) -> str:
        upstream = tables.get(ref.stage)
        if upstream is None:
            return ""
        if upstream.content != ref.content:
            return f"{ref.stage} has been made anew"
        return f"{ref.stage} is stale" if reason(ref.stage) else ""

    for stage in tables:
        reason(stage)
    return {stage: why for stage, why in found.items() if why}
