"""What the tables of PersoPilot's loop hold: who is asked about, what people answered, who gets an offer."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Contract
from normloom.schemas.people.persona_tables import STRATEGIES
from normloom.schemas.tables import TEXTS, within

DECISIONS, REPLIES = "persopilot_decisions", "persopilot_replies"  # the labels: of an analyst, and of who got an offer
SIDE, ACCEPT, DECLINE = "side", "accept", "decline"  # the question about a candidate
REPLY, ACCEPTED, DECLINED = "reply", "accepted", "declined"  # the question about an offer
WAITING = "waiting"
LISTED, ANALYST, REPLIED = "listed", "analyst", "reply"  # who said which side a user is on
CLASSIFIER = "classifier"  # the basis of an offer if no analyst decided
TOLD_BY = within("told_by", LISTED, ANALYST, REPLIED)

_ONE = {"classification_task": pl.String(), "username": pl.String()}
_SIDES = {"accept": pl.String(), "decline": pl.String()}  # the labels of the two sides, as the task names them
_WHEN = pl.Datetime("us", "UTC")
_KEYS = ("classification_task", "username")

MEMBERS = Contract(columns={**_ONE, **_SIDES}, keys=_KEYS)

LEARNED = Contract(
    columns={
        **_ONE,
        "accepted": pl.Boolean(),
        "persona": pl.String(),
        "told_by": pl.String(),
        "when": _WHEN,  # null if it is listed
    },
    nullable=frozenset({"when"}),
    keys=_KEYS,
    checks=(TOLD_BY,),
)

_OPEN = {
    "member": pl.String(),  # row id of the user in the task, which answers are about
    **_ONE,
    **_SIDES,
    "predicted": pl.Boolean(),
    "confidence": pl.Float64(),  # 0 to 1
    "covered": pl.Boolean(),  # confident enough to act
    "labelled": pl.Int64(),  # users whose label was known when it was predicted
    "like": pl.String(),  # the user of the predicted side who is nearest, null if none has a word in common
    "because": TEXTS,  # the words that they share, the weightiest first
    "origin": pl.String(),  # model: no label of a person is among predictions
}

PREDICTIONS = Contract(
    columns={**_OPEN, "persona": pl.String()},
    nullable=frozenset({"like"}),
    keys=_KEYS,
    checks=(within("origin", "model"),),
)

CANDIDATES = Contract(
    columns={**_OPEN, "persona": pl.String(), "strategy": pl.String(), "rank": pl.Int64()},
    nullable=frozenset({"like"}),
    keys=_KEYS,
    checks=(within("strategy", *STRATEGIES), within("origin", "model")),
)

SUGGESTIONS = Contract(
    columns={
        "member": pl.String(),
        **_ONE,
        **_SIDES,
        "strategy": pl.String(),
        "facts": TEXTS,
        "predicted": pl.Boolean(),
        "confidence": pl.Float64(),
        "like": pl.String(),
        "because": TEXTS,
        "score": pl.Float64(),  # the assistant's, 0 to 1; null if nobody was asked or the reply cannot be read
        "reason": pl.String(),
        "cited": TEXTS,  # the facts that it rests on
    },
    nullable=frozenset({"like", "score", "reason"}),
    keys=_KEYS,
)

OFFERS = Contract(
    columns={
        "member": pl.String(),
        **_ONE,
        "offer": pl.String(),  # the label of the side that offers go to
        "basis": pl.String(),  # analyst: somebody decided it; classifier: it is predicted
        "confidence": pl.Float64(),  # of the prediction before the reply; null if only an analyst decided
        "like": pl.String(),
        "because": TEXTS,
        "status": pl.String(),
        "replied": _WHEN,
    },
    nullable=frozenset({"confidence", "like", "replied"}),
    keys=_KEYS,
    checks=(within("status", WAITING, ACCEPTED, DECLINED), within("basis", ANALYST, CLASSIFIER)),
)

TAUGHT = Contract(
    columns={
        **_ONE,
        "place": pl.Int64(),  # of the answer among those to its task, from 1
        "told_by": pl.String(),
        "when": _WHEN,
        "labelled": pl.Int64(),
        "accepted": pl.Boolean(),  # what the answer says
        "predicted": pl.Boolean(),  # by what was known before it
        "confidence": pl.Float64(),
        "covered": pl.Boolean(),
        "like": pl.String(),
        "because": TEXTS,
        "origin": pl.String(),
    },
    nullable=frozenset({"like"}),
    keys=_KEYS,
    checks=(within("told_by", ANALYST, REPLIED), within("origin", "model")),
)
