"""A model rewords explanations: what it writes is taken if it cites the same ids, and only then."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from normloom.core.bounds import Size
from normloom.core.models.protocol import Candidate, Completion, GenerateRequest
from normloom.schemas.media import meme_tables
from normloom.tasks.bounds import slots_reworded
from normloom.tasks.cross_align.reword import Rewording, reword
from normloom.testing.toy import SCRIPTED, words_stage

TOLD = {
    "visual": "The picture says “mask” [m1].",
    "textual": "The words that weigh most are “mask” [m1] and “virus” [m2].",
    "cultural": "What is known of them: mask covers faces [f1].",
    "verdict": "Therefore: satire (probability 0.70) [m1, m2, f1].",
}


class Writer:
    """Answers each prompt by the first rule whose key it holds; without one it gives an error."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: GenerateRequest) -> Completion:
        text = next((text for key, text in self.answers.items() if key in request.prompt), None)
        if text is None:
            return Completion(candidates=(), tokens_in=1, error="refused")
        found = Candidate(text=text, seed=request.seeds[0], tokens_out=3, finish="stop")
        return Completion(candidates=(found,), tokens_in=1)


def explanations() -> pl.DataFrame:
    row = {
        "meme_id": "a",
        "task": "t",
        "label": "satire",
        "label_hat": "satire",
        "probability": 0.7,
        **TOLD,
        "cited_ids": ["a:m1", "a:m2", "a:f1"],
        "written_by": "template",
    }
    rows = pl.DataFrame([row], schema=meme_tables.EXPLANATIONS.columns)
    return rows.with_columns(row_id=pl.lit("r"), parents=pl.lit(["p"], dtype=pl.List(pl.String)))


def reworded(**answers: str) -> dict[str, str]:
    keys = {"visual": "picture", "textual": "weigh", "cultural": "known"}
    model = Writer({keys[slot]: text for slot, text in answers.items()})
    output = reword.function(explanations(), Rewording(), model, writer="w")  # type: ignore[arg-type]  # it only writes
    assert output.metrics["slots_asked"] == 3
    return dict(output.rows.row(0, named=True))


def test_a_text_with_the_same_ids_is_taken() -> None:
    made = reworded(visual="You can read “mask” [m1] there.")
    assert (made["visual"], made["written_by"]) == ("You can read “mask” [m1] there.", "w")
    assert {slot: made[slot] for slot in TOLD if slot != "visual"} == {k: v for k, v in TOLD.items() if k != "visual"}


def test_a_text_that_loses_adds_or_repeats_lines_is_not() -> None:
    made = reworded(
        visual="You can read it.", textual="Mask [m1], virus [m2], frog [m9].", cultural="Faces [f1].\nMore."
    )
    assert {slot: made[slot] for slot in TOLD} == TOLD
    assert made["written_by"] == "template"


def test_three_slots_of_each_explanation_are_asked() -> None:
    stage = reword(words_stage("a"), Rewording(), model=SCRIPTED, writer="w")
    bound = slots_reworded(stage, [Size(rows=4, tokens=100)], [])
    assert (bound.requests, bound.tokens_out) == (12, 12 * 160)
