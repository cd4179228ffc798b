from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest
from hand_made import ANY, Answerer, carry_out

from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.taxonomy import BUILTIN, load_taxonomy
from normloom.tasks.prompts.asked import asked
from normloom.tasks.prompts.semantic_type import AskingType, score_types, semantic_type
from normloom.testing.toy import SCRIPTED

TYPES = load_taxonomy(BUILTIN / "semantic_type.csv")
TEXTS = asked(ANY)
ASKING = score_types(TEXTS, AskingType(), SCRIPTED, types=TYPES)
STAGE = semantic_type(ANY, ASKING, types=TYPES)
SHARES = {"who": (0.5, 0.3, 0.2), "colour": (0.1, 0.8, 0.1), "owed": (0.2, 0.2, 0.6), "even": (0.4, 0.4, 0.2)}


def prompts(*texts: str) -> pl.DataFrame:
    rows = [
        {"row_id": text, "prompt": text, "origin": "source", "labels": [], "probabilities": [], "fingerprint": 1}
        for text in texts
    ]
    return pl.DataFrame(rows, schema={"row_id": pl.String, **tables.UNIQUE.columns})


def typed(rows: pl.DataFrame, *, model: Answerer) -> Output:
    """Return what the stages make of prompts: the types, and what was quarantined."""
    texts = carry_out(TEXTS, rows)
    said = carry_out(ASKING, texts.rows, model=model)
    assert set(said.rows["prompt_id"]) <= set(rows["row_id"])
    return replace(carry_out(STAGE, rows, said.rows), quarantined=said.quarantined)


def test_the_most_probable_code_names_the_type_and_all_are_stored() -> None:
    model = Answerer(lambda context, _: SHARES[context.split()[1]])
    output = typed(prompts("who", "colour", "owed", "even"), model=model)
    found = dict(output.rows.select("prompt", "semantic_type").iter_rows())
    assert found == {
        "who": "semantic_type/object",
        "colour": "semantic_type/attribute",
        "owed": "semantic_type/relation",
        "even": "semantic_type/object",  # of equals the first
    }
    stored = output.rows["type_logprobs"].to_list()[1]
    assert stored == pytest.approx([math.log(share) for share in SHARES["colour"]], rel=1e-6)


def test_the_model_reads_each_type_with_its_definition() -> None:
    model = Answerer(lambda *_: (0.4, 0.3, 0.3))
    typed(prompts("who"), model=model)
    [request] = model.requests
    assert request.answers == ("A", "B", "C")
    for code, label in zip("ABC", TYPES.labels, strict=True):
        assert f"{code}: {label.name}. {label.definition}" in request.instruction


def test_a_prompt_that_does_not_fit_is_quarantined_with_the_reason() -> None:
    model = Answerer(lambda *_: (0.4, 0.3, 0.3), too_long="colour")
    output = typed(prompts("who", "colour"), model=model)
    assert output.rows["prompt"].to_list() == ["who"]
    assert output.quarantined["reason"].to_list() == ["the context does not fit"]
