"""Offers: who gets one and why, what they replied, and what was predicted of every answer before it was given."""

from __future__ import annotations

from typing import Any

import polars as pl

from normloom.core.fan_out import each, free
from normloom.core.stage import Output, dropped_rows
from normloom.schemas import tables
from normloom.schemas.people import analyst_tables
from normloom.schemas.people.analyst_tables import (
    ACCEPT,
    ACCEPTED,
    ANALYST,
    CLASSIFIER,
    DECLINED,
    LISTED,
    REPLIED,
    WAITING,
)
from normloom.steps.step import step
from normloom.tasks.personas.classifier import MODEL, Acting, Classifier

_ONE = ("classification_task", "username")
_NOTHING: dict[str, Any] = {"confidence": None, "like": None, "because": [], "replied": None}


@step(makes=analyst_tables.OFFERS, fan_out=each())
def offers(
    rows: pl.DataFrame,
    predictions: pl.DataFrame,
    learned: pl.DataFrame,
    taught: pl.DataFrame,
    decisions: pl.DataFrame,
) -> Output:
    """Return who gets an offer: who an analyst decided would accept, and who is predicted to with enough confidence.

    An offer that was replied to stays, with its reply and what was predicted before it. Who is listed has none: that
    is dropped as `listed`, who is not sure enough or would decline as such.
    """
    ahead, known, before = (
        {_key(row): row for row in of.iter_rows(named=True)} for of in (predictions, learned, taught)
    )
    decided = set(decisions.filter(value=ACCEPT)["asked"])
    made, left = [], []
    for row in rows.iter_rows(named=True):
        label, guess = known.get(_key(row)), ahead.get(_key(row))
        offer = {"row_id": row["row_id"], "member": row["row_id"], "offer": row["accept"], **_NOTHING}
        offer |= {name: row[name] for name in _ONE}
        if label and label["told_by"] == REPLIED:
            was = before[_key(row)]
            status = ACCEPTED if label["accepted"] else DECLINED
            offer |= {"basis": ANALYST if row["row_id"] in decided else CLASSIFIER, "status": status}
            offer |= {**_why(was), "replied": label["when"]}
            made.append({**offer, "through": [row["row_id"], label["row_id"], was["row_id"]]})
        elif label and label["told_by"] == ANALYST and label["accepted"]:
            offer |= {"basis": ANALYST, "status": WAITING}
            made.append({**offer, "through": [row["row_id"], label["row_id"]]})
        elif guess and guess["covered"] and guess["predicted"]:
            offer |= {"basis": CLASSIFIER, "status": WAITING, **_why(guess)}
            made.append({**offer, "through": [row["row_id"], guess["row_id"]]})
        else:
            left.append({**row, "reason": _reason(label, guess)})
    schema = {"row_id": pl.String(), "through": tables.TEXTS, **analyst_tables.OFFERS.columns}
    out = pl.DataFrame(left, schema={**rows.schema, "reason": pl.String})
    return Output(
        rows=pl.DataFrame(made, schema=schema),
        dropped=dropped_rows(out, reason=pl.col("reason"), leaving_out=("reason",)),
    )


@step(
    makes=analyst_tables.TAUGHT,
    libraries=("scikit-learn", "numpy"),
    fan_out=free("one row for each label that people gave since"),
)
def taught(rows: pl.DataFrame, args: Acting) -> Output:
    """Return what was predicted of each user before an analyst decided or a reply came, by what was known till then.

    Answers are taken in the order in which they were given: none is seen before its turn.
    """
    made: list[dict[str, Any]] = []
    for (task,), users in rows.group_by("classification_task", maintain_order=True):
        known = users.filter(told_by=LISTED).to_dicts()
        later = users.filter(pl.col("told_by") != LISTED).sort("when", "username")
        for place, row in enumerate(later.iter_rows(named=True), 1):
            classifier = Classifier([one["persona"] for one in known], [one["accepted"] for one in known])
            found = classifier.predict([row["persona"]])
            accepts, confidence = bool(found.accepts[0]), float(found.confidence[0])
            near, words = classifier.nearest(row["persona"], accepted=accepts)
            made.append(
                {
                    "parents": [row["row_id"], *(one["row_id"] for one in known)],
                    "content": f"{task}\x1f{row['username']}",
                    **{name: row[name] for name in (*_ONE, "told_by", "when", "accepted")},
                    "place": place,
                    "labelled": len(known),
                    "predicted": accepts,
                    "confidence": confidence,
                    "covered": confidence >= args.act_at,
                    "like": None if near is None else known[near]["username"],
                    "because": words,
                    "origin": MODEL,
                }
            )
            known.append(row)
    schema = tables.named_by_content(analyst_tables.TAUGHT)
    return Output(rows=pl.DataFrame(made, schema=schema), attempts=len(made))


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["classification_task"], row["username"]


def _why(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("confidence", "like", "because")}


def _reason(label: dict[str, Any] | None, guess: dict[str, Any] | None) -> str:
    if label:
        return "listed" if label["told_by"] == LISTED else "decided otherwise"
    return "not sure enough" if guess and not guess["covered"] else "would decline"
