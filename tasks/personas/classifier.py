"""Which users would take an offer: the nearest accepted against the nearest declined user, by their personas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.stage import Output
from normloom.schemas import persona_tables
from normloom.steps.args import Args
from normloom.steps.step import step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODEL = "model"


class Acting(Args):
    """When the classifier is sure enough to act."""

    act_at: float = Field(0.65, ge=0, le=1, description="confidence from which an offer is made or withheld")


@dataclass(frozen=True)
class Predicted:
    """Of some users: whether each is predicted to accept, with what confidence, and how like the training users it is.

    Each has shape (users,); `likeness` is the largest cosine to any training user.
    """

    accepts: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float64]
    likeness: npt.NDArray[np.float64]


def predict(known: Sequence[str], accepted: Sequence[bool], asked: Sequence[str]) -> Predicted:
    """Return what the classifier says of users (`asked`, as personas) after those whose label is known.

    TF-IDF of words and word pairs without English stop words, fitted on the known users alone. With a and d the
    largest cosine to an accepted and to a declined user, a user accepts if a > d; confidence is |a - d| / (a + d), and
    0 if both are 0.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words="english", ngram_range=(1, 2))
    try:
        trained = vectorizer.fit_transform(known)
    except ValueError:  # stop words alone: nothing is like anything
        cosines = np.zeros((len(asked), len(known)))
    else:
        cosines = (vectorizer.transform(asked) @ trained.T).toarray()
    side = np.asarray(accepted, dtype=bool)
    a = cosines[:, side].max(axis=1, initial=0.0)
    d = cosines[:, ~side].max(axis=1, initial=0.0)
    both = a + d
    confidence = np.divide(np.abs(a - d), both, out=np.zeros(len(asked)), where=both > 0)
    return Predicted(accepts=a > d, confidence=confidence, likeness=np.maximum(a, d))


@step(makes=persona_tables.PREDICTIONS, libraries=("scikit-learn", "numpy"), fan_out=each())
def leave_one_out(rows: pl.DataFrame, args: Acting) -> Output:
    """Return what is predicted of each labelled user from all others of their task."""
    made = []
    for (task,), users in rows.group_by("classification_task", maintain_order=True):
        texts, sides = users["persona"].to_list(), users["accepted"].to_list()
        for place, row in enumerate(users.iter_rows(named=True)):
            others = [at for at in range(users.height) if at != place]
            found = predict([texts[at] for at in others], [sides[at] for at in others], [texts[place]])
            confidence = float(found.confidence[0])
            made.append(
                {
                    "row_id": row["row_id"],
                    "classification_task": task,
                    "username": row["username"],
                    "accepted": row["accepted"],
                    "predicted": bool(found.accepts[0]),
                    "confidence": confidence,
                    "covered": confidence >= args.act_at,
                    "origin": MODEL,
                }
            )
    return Output(rows=pl.DataFrame(made, schema={"row_id": pl.String, **persona_tables.PREDICTIONS.columns}))
