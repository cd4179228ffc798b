"""Facts in what a user says: sentence by sentence, with the characters that name the object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from normloom.core.errors import UsageError
from normloom.schemas.people.persona_tables import UNKNOWN
from normloom.store.store import Store
from normloom.tasks.personas.extractor import FOLDER, RELATION, Linear, load_extractor, read_facts
from normloom.tasks.personas.utterances import WORD

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


@dataclass(frozen=True, kw_only=True)
class FoundFact:
    """A fact that a text states: `object` is its characters `start` to `stop`."""

    relation: str
    object: str
    start: int
    stop: int
    confidence: float


class UtteranceReader:
    """The extractor that a build trained, out of its published files alone.

    Raises UsageError if no build has made one.
    """

    def __init__(self, store: Store, system: str) -> None:
        table = store.current(system, FOLDER)
        if table is None:
            raise UsageError(
                f"no extractor of {system} in {store.root}: run normloom build {system} first, with utterances to "
                "learn from (source.utterances)"
            )
        self.store, self.table = store, table

    @property
    def title(self) -> str:
        """What it is called in the record."""
        return f"{FOLDER} {self.table.key[:8]}"

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it knows."""
        return self._models[RELATION].classes

    def find(self, text: str, *, least: float) -> list[FoundFact]:
        """Return the facts in a text whose relation has at least this probability; questions state none."""
        sentences = [one for one in _SENTENCE.finditer(text) if not one[0].endswith("?")]
        tokens = [[(one[0], at.start() + one.start()) for one in WORD.finditer(at[0])] for at in sentences]
        tokens = [one for one in tokens if one]
        found = []
        for words, fact in zip(
            tokens, read_facts(self._models, [[word for word, _ in one] for one in tokens]), strict=True
        ):
            if not fact.object or fact.confidence < least:
                continue
            start = words[fact.object[0]][1]
            last, at = words[fact.object[-1]]
            stop = at + len(last)
            found.append(
                FoundFact(
                    relation=fact.relation, object=text[start:stop], start=start, stop=stop, confidence=fact.confidence
                )
            )
        return found

    @cached_property
    def _models(self) -> dict[str, Linear]:
        return load_extractor(self.store.folder(self.table.ref))


def topic_of(facts: pl.DataFrame, task: str, said: str, *, margin: float) -> str:
    """Return the topic of a task whose facts are most like what is said, `unknown` within the margin of another.

    `facts` have task, topic, relation and object. Likeness is the largest cosine to a fact of the topic: TF-IDF of
    words and word pairs without English stop words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    own = facts.filter(task=task).select("topic", said=_said())
    if own.is_empty():
        return UNKNOWN
    vectorizer = TfidfVectorizer(stop_words="english", ngram_range=(1, 2))
    try:
        known = vectorizer.fit_transform(own["said"].to_list())
    except ValueError:  # stop words alone
        return UNKNOWN
    cosines = (known @ vectorizer.transform([said.replace("_", " ")]).T).toarray()[:, 0]
    best = (
        own.select("topic", cosine=pl.Series(cosines))
        .group_by("topic")
        .agg(pl.col("cosine").max())
        .sort(["cosine", "topic"], descending=[True, False])
    )
    first, second = best["cosine"][0], best["cosine"][1] if best.height > 1 else 0.0
    return best["topic"][0] if first - second > margin else UNKNOWN


def _said() -> pl.Expr:
    return pl.concat_str("relation", pl.lit(" "), "object").str.replace_all("_", " ")
