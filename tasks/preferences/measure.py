"""Signals of our own in place of the paper's: cosines of sentence vectors, and negation as text.

The paper's are models: UniEval for coherence, an NLI classifier for consistency and entailment, mean word vectors for
the persona. These stand in for them if no such model is at hand, and every row says so in `source`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.protocol import Embedder
from normloom.core.stage import Output
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import (
    COHERENCE,
    CONSISTENCY,
    MEASURED,
    NONE,
    OK,
    PERSONA_DISTANCE,
    UTTERANCE_ENTAILMENT,
)
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.preferences.replies import signal_rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SENTENCE = re.compile(r"(?<=[.!?])\s*(?=[A-Z\"'])")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|cannot|without)\b|n't\b|\bdon?t\b", re.IGNORECASE
)
_SPEAKER = re.compile(r"^\s*User\d+:\s*")
SOURCES = {
    COHERENCE: "cosine of context and reply",
    CONSISTENCY: "cosine of persona sentence and reply, with negation",
    UTTERANCE_ENTAILMENT: "cosine of persona sentence and of reference to reply, with negation",
    PERSONA_DISTANCE: "cosine of persona and reply",
}


class Measuring(Args):
    """How signals are measured."""

    by: str = Field("models", pattern="^(models|released)$", description="by models of the profile, or as released")
    near: float = Field(0.5, gt=0, lt=1, description="cosine from which a sentence counts as said")
    part_rows: int = Field(512, ge=1, exclude=True, description="replies in one part")


@step(
    makes=preference_tables.SIGNALS,
    name="signals",
    libraries=("numpy",),
    fan_out=lambda given: each(
        pl.when(pl.col("parse_status") != NONE).then(len(given["names"])).otherwise(0), by_part=True
    ),
)
def measure(
    rows: pl.DataFrame,
    args: Measuring,
    prompts: pl.DataFrame,
    model: Embedder,
    *,
    encoder: str,
    names: tuple[str, ...] = MEASURED,
) -> Output:
    """Return the named signals of each reply; those of one that did not parse are null.

    Consistency is 1 if the reply is near a sentence of the persona and negates just what it does, -1 if it is near
    and only one of the two is negated, else 0. Utterance entailment is 1 if the consistency is 1, and 2 if the reply
    entails the reference too.
    """
    scored = rows.filter(pl.col("parse_status") != NONE).select(
        "row_id", "gen_id", "prompt_id", "parse_status", "response"
    )
    told = scored.join(
        prompts.select("prompt_id", "persona", "context", "reference"), on="prompt_id", maintain_order="left"
    )
    valid = told.filter(parse_status=OK)
    values = _measured(valid, model, args.near) if valid.height else {name: [] for name in MEASURED}
    wide = valid.select("gen_id").with_columns(
        pl.Series(name, column, dtype=pl.Float64) for name, column in values.items()
    )
    long = wide.unpivot(names, index="gen_id", variable_name="signal", value_name="value")
    named = scored.join(pl.DataFrame({"signal": names}), how="cross", maintain_order="left")
    sources = pl.col("signal").replace_strict({name: f"{text} ({encoder})" for name, text in SOURCES.items()})
    return signal_rows(named.join(long, on=("gen_id", "signal"), how="left", maintain_order="left"), source=sources)


def _measured(valid: pl.DataFrame, model: Embedder, near: float) -> dict[str, list[float]]:
    personas = [sentences(text) for text in valid["persona"]]
    references = [without_speaker(text or "") for text in valid["reference"]]
    texts = dict.fromkeys(
        [*valid["persona"], *valid["context"], *valid["response"], *references]
        + [sentence for persona in personas for sentence in persona]
    )
    vectors = dict(zip(texts, model.embed(list(texts)), strict=True))
    found: dict[str, list[float]] = {name: [] for name in MEASURED}
    rows = valid.select("persona", "context", "response").iter_rows()
    for (persona, context, response), said, reference in zip(rows, personas, references, strict=True):
        reply = vectors[response]
        entails = _stance([(one, vectors[one]) for one in said], response, reply, near)
        refers = bool(reference) and _stance([(reference, vectors[reference])], response, reply, near) > 0
        found[COHERENCE].append(_clipped(vectors[context] @ reply, 0.0))
        found[CONSISTENCY].append(entails)
        found[UTTERANCE_ENTAILMENT].append(0.0 if entails < 1 else 2.0 if refers else 1.0)
        found[PERSONA_DISTANCE].append(_clipped(vectors[persona] @ reply, -1.0))
    return found


def sentences(text: str) -> list[str]:
    """Return the sentences of a persona, which FoCus writes without blanks between them."""
    return [sentence for sentence in _SENTENCE.split(text) if sentence]


def without_speaker(text: str) -> str:
    """Return a turn of a dialogue without the name of who says it."""
    return _SPEAKER.sub("", text)


def negated(text: str) -> bool:
    """Return whether a text negates something."""
    return _NEGATION.search(text) is not None


def _stance(
    said: list[tuple[str, npt.NDArray[np.float32]]], response: str, reply: npt.NDArray[np.float32], near: float
) -> float:
    """Return what the reply makes of the nearest of the sentences: 1 it says so, -1 the opposite, 0 neither."""
    if not said:
        return 0.0
    sentence, vector = max(said, key=lambda one: float(one[1] @ reply))
    if float(vector @ reply) < near:
        return 0.0
    return 1.0 if negated(sentence) == negated(response) else -1.0


def _clipped(cosine: float, low: float) -> float:
    return min(max(float(cosine), low), 1.0)
