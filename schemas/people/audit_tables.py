"""The table of an audit: all rows of the table that is audited, with what decides which are drawn."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Contract

GROUPS = pl.List(pl.Struct({"by": pl.String(), "value": pl.String()}))

FRAME = Contract(
    columns={
        "audit_verdict": pl.String(),
        "audit_margin": pl.Float64(),
        "audit_groups": GROUPS,
        "audit_stratum": pl.String(),
    },
    nullable=frozenset({"audit_margin"}),
    extra=True,
)
