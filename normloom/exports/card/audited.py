"""The section of a card about an audit: figures that people's answers corrected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normloom.exports.card.facts import Facts
from normloom.exports.card.markdown import table, text

SHOWN = 60  # figures of groups


def audited(facts: Facts) -> Iterator[str]:
    """Yield the corrected figures of an audited release, overall and by group."""
    if facts.audit is None:
        return
    figures = facts.audit.filter(facts.audit["metric"] != "random_answers")
    overall = figures.filter(slice_by="overall")
    answers = max(overall.filter(axis="prediction-powered")["rows"].to_list(), default=0)
    yield from (
        "## Audit",
        "",
        f"People answered {answers:,} rows, drawn so that intervals become narrow. Figures are corrected for the",
        "errors of the judge: by the answers themselves (prediction-powered), or, also for rows without answers, by",
        "the sensitivity and specificity of the judge (Rogan-Gladen). Intervals are 95 %.",
        "",
    )
    headings = ("figure", "of", "method", "value", "interval", "rows")
    yield from table(headings, map(_figure, overall.iter_rows(named=True)))
    every = figures.filter((figures["slice_by"] != "overall") & (figures["axis"] != "as judged"))
    groups = every.filter(every["value"].is_not_null())
    if groups.height:
        shown = groups.head(SHOWN).iter_rows(named=True)
        yield from ("### By group", "")
        yield from table(
            ("by", "group", *headings), ((text(row["slice_by"]), text(row["slice"]), *_figure(row)) for row in shown)
        )
        if groups.height > SHOWN:
            yield from (f"And {groups.height - SHOWN:,} more.", "")
    if left := every.height - groups.height:
        yield from (f"{left:,} figures of groups have no value, most because they have too few answers.", "")


def _figure(row: Mapping[str, Any]) -> tuple[str, ...]:
    value = "-" if row["value"] is None else f"{row['value']:.3f}"
    interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    said = f"undefined: {text(row['undefined'])}" if row["value"] is None else interval
    return (text(row["metric"]), text(row["of"]), text(row["axis"]), value, said, f"{row['rows']:,}")
