"""Preferences of a judge that were published with the replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from normloom.core.rows.ids import seed
from normloom.core.stage import Output, quarantined_frame
from normloom.readers import LIBRARIES, Located, read_source
from normloom.readers.records import none_usable
from normloom.schemas import tables
from normloom.schemas.training import alignx_tables
from normloom.schemas.training.alignx_tables import EMPTY, HELPFUL, OK, WIN, WORST
from normloom.steps.step import step
from normloom.tasks.records import fault
from normloom.tasks.tradeoff.phrases import count_words

_RECORDED = ("model", "instruction", "baseline_reply", "model_reply", "preference")
_PREFERENCE = {0.0: 0.5, 1.0: 0.0, 1.5: 0.5, 2.0: 1.0}  # of AlpacaEval: baseline 1, model 2, a draw 0 or 1.5


@step(makes=alignx_tables.JUDGED, name="judged_recorded", libraries=LIBRARIES)
def read_judged(*, source: Located, judge: str, axis: str = HELPFUL) -> Output:
    """Return the preferences that were recorded with replies, in AlpacaEval's layout; no preference fails as `empty`.

    The file has model, instruction, baseline_reply, model_reply and preference (2: model, 1: baseline, 0 or 1.5: draw).
    Quarantine rules: `missing_value`, `unknown_preference`, `repeated`.
    """
    read = read_source(source, text_column=None, keep=_RECORDED)
    texts = read.rows.with_columns(*(read.text(name) for name in _RECORDED), recorded=read.numbers("preference"))
    made, faults, seen = [], [], set[tuple[str, str]]()
    for record in texts.iter_rows(named=True):
        key = record["instruction"] or "", record["model"] or ""
        if problem := _problem(record, repeated=key in seen):
            faults.append(fault(record, *problem))
            continue
        seen.add(key)
        preference = record["recorded"]
        made.append(
            {
                "parents": [],
                "content": "\x1f".join(key),
                "prompt_id": f"{seed(key[0]):016x}",
                "axis": axis,
                "system": record["model"],
                "measure": WIN,
                "judge": judge,
                "value": None if preference is None else _PREFERENCE[preference],
                "worst": WORST[WIN],
                "words": count_words(record["model_reply"] or ""),
                "reference_words": count_words(record["baseline_reply"] or ""),
                "parse_status": EMPTY if preference is None else OK,
            }
        )
    aside = [*faults, *read.entries]
    if not made:
        raise none_usable(source.name, aside)
    return Output(
        rows=pl.DataFrame(made, schema=tables.named_by_content(alignx_tables.JUDGED)),
        quarantined=quarantined_frame(aside),
        attempts=read.records,
    )


def _problem(record: Mapping[str, Any], *, repeated: bool) -> tuple[str, str] | None:
    if missing := next((name for name in ("model", "instruction") if not record[name]), None):
        return "missing_value", f"no {missing}"
    if record["preference"] and record["recorded"] not in _PREFERENCE:
        known = ", ".join(f"{one:g}" for one in _PREFERENCE)
        return "unknown_preference", f"preference is {record['preference']!r}, expected {known} or none"
    return ("repeated", f"{record['model']} answers this instruction in another record too") if repeated else None
