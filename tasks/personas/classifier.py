"""Which users would take an offer: the nearest accepted against the nearest declined user, by their personas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.stage import Output
from normloom.schemas.people import persona_tables
from normloom.steps.args import Args
from normloom.steps.step import step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODEL = "model"
SHARED = 3  # words that explain a prediction


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


class Classifier:
    """Fitted on users whose label is known, and on nobody else.

    TF-IDF of words and word pairs without English stop words. With a and d the largest cosine to an accepted and to a
    declined user, a user accepts if a > d; confidence is |a - d| / (a + d), and 0 if both are 0.
    """

    def __init__(self, known: Sequence[str], accepted: Sequence[bool]) -> None:
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(stop_words="english", ngram_range=(1, 2))
        self._side = np.asarray(accepted, dtype=bool)
        try:
            self._trained = self._vectorizer.fit_transform(known)
        except ValueError:  # stop words alone: nothing is like anything
            self._trained = None

    def predict(self, asked: Sequence[str]) -> Predicted:
        """Return what is predicted of users, as personas."""
        import numpy as np

        cosines = np.zeros((len(asked), len(self._side)))
        if self._trained is not None:
            cosines = (self._vectorizer.transform(asked) @ self._trained.T).toarray()
        a = cosines[:, self._side].max(axis=1, initial=0.0)
        d = cosines[:, ~self._side].max(axis=1, initial=0.0)
        both = a + d
        confidence = np.divide(np.abs(a - d), both, out=np.zeros(len(asked)), where=both > 0)
        return Predicted(accepts=a > d, confidence=confidence, likeness=np.maximum(a, d))

    def nearest(self, asked: str, *, accepted: bool) -> tuple[int | None, list[str]]:
        """Return which known user of a side is nearest, by place, and the words that they share, the weightiest first.

        The place is None if no user of this side shares a word.
        """
        import numpy as np

        own = np.flatnonzero(self._side == accepted)
        if self._trained is None or not own.size:
            return None, []
        vector = self._vectorizer.transform([asked])
        cosines = (vector @ self._trained[own].T).toarray()[0]
        if not cosines.max() > 0:
            return None, []
        place = int(own[cosines.argmax()])
        weights = vector.multiply(self._trained[place]).toarray()[0]
        names = self._vectorizer.get_feature_names_out()
        best = sorted(np.flatnonzero(weights), key=lambda at: (-weights[at], names[at]))
        return place, [str(names[at]) for at in best[:SHARED]]


def predict(known: Sequence[str], accepted: Sequence[bool], asked: Sequence[str]) -> Predicted:
    """Return what a classifier fitted on users whose label is known says of others, all given as personas."""
    return Classifier(known, accepted).predict(asked)


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
