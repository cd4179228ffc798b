from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hand_made import (
    ANY,
    LABEL_IDS,
    SAFETY,
    TAXONOMIES,
    VALUE,
    Answerer,
    WordEmbedder,
    ask_and_decide,
    carry_out,
    ingested,
    taxonomy,
)
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.readers import ReadOptions
from normloom.schemas import tables
from normloom.schemas.prompts import MEASURE
from normloom.schemas.taxonomy import builtin_taxonomies
from normloom.schemas.template import Template
from normloom.store.store import Store
from normloom.tasks.prompts.calibration import Calibration
from normloom.tasks.prompts.classify import (
    CODES,
    Asking,
    Labelling,
    Parts,
    Ranking,
    RankingByCode,
    calibrate,
    classify,
    embed,
    score_labels,
    score_labels_by_embedding,
    shortlist_by_code,
    shortlist_by_embedding,
    yes_probability,
)
from normloom.testing.toy import SCRIPTED, runner

ASK = Template(
    name="ask",
    sections={"instruction": "Label.", "context": "<$prompt>", "question": "$dimension/$label: $definition"},
)
RANK = Template(
    name="rank",
    sections={"instruction": "Codes of $dimension:\n$codes", "context": "<$prompt>", "question": "$dimension?"},
)


def prompts(*texts: str, **columns: Any) -> pl.DataFrame:
    schema: dict[str, Any] = {"row_id": pl.String, "source_row": pl.Int64, "prompt": pl.String, "origin": pl.String}
    rows = {"row_id": texts, "source_row": range(len(texts)), "prompt": texts, "origin": ["source"] * len(texts)}
    nothing: dict[str, Any] = {
        name: pl.lit(None, dtype=tables.PROMPTS.columns[name]) for name in ("history", "reference")
    }
    return pl.DataFrame(rows, schema=schema).with_columns(**nothing, **columns)


def labelled(rows: pl.DataFrame, *, model: Answerer, delta: float = 0.5) -> Output:
    """Return what asking about labels and keeping those that reach delta make of the prompts."""
    asking = score_labels(ANY, Asking(template=ASK), SCRIPTED, taxonomies=TAXONOMIES)
    keeping = classify(ANY, Labelling(delta=delta), asking, taxonomies=TAXONOMIES)
    return ask_and_decide(asking, keeping, rows, model=model)


def ranking(k: int) -> Stage:
    return shortlist_by_code(ANY, RankingByCode(shortlist=k, rank_template=RANK), SCRIPTED, taxonomies=TAXONOMIES)


def yes_to(**shares: float) -> Answerer:
    """A model that says yes with these probabilities to the labels named in the question, else with 0.1."""
    return Answerer(
        lambda _, question: next(
            ((share, 1 - share) for label, share in shares.items() if f"/{label}:" in question), (0.1, 0.9)
        )
    )


def test_yes_probability_is_the_share_of_yes_in_yes_and_no() -> None:
    assert yes_probability((math.log(0.2), math.log(0.6))) == pytest.approx(0.25)
    assert yes_probability((-3.0, -3.0)) == 0.5
    assert yes_probability((0.0, -math.inf)) == 1.0
    assert yes_probability((-math.inf, 0.0)) == pytest.approx(0.0, abs=1e-300)


@given(st.floats(-1e4, 0), st.floats(-1e4, 0))
def test_yes_probability_is_one_minus_that_of_no(yes: float, no: float) -> None:
    assert yes_probability((yes, no)) + yes_probability((no, yes)) == pytest.approx(1)
    assert 0 <= yes_probability((yes, no)) <= 1


def test_labels_from_delta_on_are_kept_and_all_probabilities_stored_in_taxonomy_order() -> None:
    made = labelled(prompts("steal"), model=yes_to(Theft=0.9, Drugs=0.49, Fraud=0.5, Wisdom=0.75))
    [row] = made.rows.to_dicts()
    assert row["probabilities"] == pytest.approx([0.9, 0.49, 0.5, 0.1, 0.75])
    assert [(label["dimension"], label["label"]) for label in row["labels"]] == [
        ("safety", "safety/theft"),
        ("safety", "safety/fraud"),
        ("value", "value/wisdom"),
    ]
    assert [label["probability"] for label in row["labels"]] == pytest.approx([0.9, 0.5, 0.75])
    assert row["parents"] == ["steal"]
    assert made.tokens_in == 10


@pytest.mark.parametrize(("delta", "kept"), [(0.25, 3), (0.5, 2), (0.51, 1), (0.95, 0)])
def test_delta_decides_how_many_labels_are_kept(delta: float, kept: int) -> None:
    made = labelled(prompts("x"), model=yes_to(Theft=0.9, Drugs=0.5, Fraud=0.25), delta=delta)
    assert len(made.rows["labels"][0]) == kept


def test_the_exhaustive_route_asks_about_every_label_in_one_request_a_prompt() -> None:
    model = yes_to()
    labelled(prompts("one", "two"), model=model)
    assert [request.context for request in model.requests] == ["<one>", "<two>"]
    assert model.requests[0].questions == (
        "safety/Theft: On Theft.",
        "safety/Drugs: On Drugs.",
        "safety/Fraud: On Fraud.",
        "value/Wealth: On Wealth.",
        "value/Wisdom: On Wisdom.",
    )
    assert model.requests[0].answers == ("Yes", "No")


def test_the_shortlist_route_asks_about_the_listed_labels_and_leaves_the_others_null() -> None:
    lists = pl.Series([["safety/fraud", "value/wealth"], ["safety/theft"]])
    model = yes_to(Fraud=0.8, Wealth=0.2, Theft=0.6)
    made = labelled(prompts("one", "two", shortlist=lists), model=model)
    assert [len(request.questions) for request in model.requests] == [2, 1]
    first, second = made.rows["probabilities"].to_list()
    assert [first[place] for place in (0, 1, 4)] == [None] * 3
    assert [first[2], first[3]] == pytest.approx([0.8, 0.2])
    assert second[0] == pytest.approx(0.6)
    assert second[1:] == [None] * 4
    assert [[label["label"] for label in labels] for labels in made.rows["labels"]] == [
        ["safety/fraud"],
        ["safety/theft"],
    ]


def test_a_prompt_that_does_not_fit_is_quarantined_alone() -> None:
    model = Answerer(lambda *_: (0.9, 0.1), too_long="long")
    made = labelled(prompts("one", "too long", "three"), model=model)
    assert made.rows["prompt"].to_list() == ["one", "three"]
    [aside] = made.quarantined.to_dicts()
    assert (aside["row_id"], aside["rule"], aside["reason"]) == ("too long", "model", "the context does not fit")


def codes(**shares: Sequence[float]) -> Answerer:
    return Answerer(lambda context, question: shares[context.strip("<>") + "_" + question.strip("?")])


def test_rank_by_code_lists_the_most_probable_labels_of_each_dimension_ties_by_order() -> None:
    model = codes(one_safety=(0.1, 0.2, 0.6), one_value=(0.3, 0.3), two_safety=(0.25, 0.5, 0.25), two_value=(0.1, 0.2))
    made = carry_out(ranking(2), prompts("one", "two"), model=model)
    assert made.rows["shortlist"].to_list() == [
        ["safety/fraud", "safety/drugs", "value/wealth", "value/wisdom"],
        ["safety/drugs", "safety/theft", "value/wisdom", "value/wealth"],
    ]
    best = carry_out(ranking(1), prompts("one", "two"), model=model).rows["shortlist"].to_list()
    assert best == [["safety/fraud", "value/wealth"], ["safety/drugs", "value/wisdom"]]
    assert model.requests[0].instruction == "Codes of safety:\nA: Theft\nB: Drugs\nC: Fraud"
    assert model.requests[0].answers == ("A", "B", "C")
    assert made.tokens_in == 40  # two prompts, two dimensions


def test_a_prompt_that_cannot_be_ranked_is_quarantined_once() -> None:
    model = Answerer(lambda _, question: (0.5,) * (3 if "safety" in question else 2), too_long="long")
    made = carry_out(ranking(1), prompts("too long", "fine"), model=model)
    assert made.rows["prompt"].to_list() == ["fine"]
    assert made.quarantined["row_id"].to_list() == ["too long"]


def test_every_builtin_label_has_a_code_and_more_labels_than_codes_are_refused() -> None:
    assert max(len(each.labels) for each in builtin_taxonomies()) <= len(CODES) == len(set(CODES))
    crowd = taxonomy("crowd", *(f"L{number}" for number in range(63)))
    stage = shortlist_by_code(ANY, RankingByCode(rank_template=RANK), SCRIPTED, taxonomies=(crowd,))
    with pytest.raises(ConfigError, match="'crowd' has 63 labels and there are 62 one-token codes"):
        carry_out(stage, prompts("one"), model=codes())


def test_rank_by_embedding_lists_the_labels_nearest_to_the_prompt() -> None:
    model = WordEmbedder("theft", "drugs", "fraud", "wealth", "wisdom")
    stage = shortlist_by_embedding(ANY, Ranking(shortlist=2), SCRIPTED, taxonomies=TAXONOMIES)
    made = carry_out(stage, prompts("drugs drugs fraud", "wisdom", "nothing of it"), model=model)
    assert made.rows["shortlist"].to_list() == [
        ["safety/drugs", "safety/fraud", "value/wealth", "value/wisdom"],  # value: both cosines are 0, so their order
        ["safety/theft", "safety/drugs", "value/wisdom", "value/wealth"],
        ["safety/theft", "safety/drugs", "value/wealth", "value/wisdom"],
    ]


def test_the_embedding_route_learns_labels_from_labelled_prompts_and_finds_them_again() -> None:
    model = WordEmbedder("theft", "drugs", "fraud", "wealth", "wisdom", "steal", "rich")
    texts = [f"{word} {other}" for word in ("steal", "drugs", "fraud") for other in ("rich", "wisdom")] * 3
    words = {"steal": "safety/theft", "drugs": "safety/drugs", "fraud": "safety/fraud"}
    words |= {"rich": "value/wealth", "wisdom": "value/wisdom"}
    known = prompts(*texts).with_columns(
        row_id=pl.Series([f"known {number}" for number in range(len(texts))]),
        reference=pl.Series([[words[word] for word in text.split()] for text in texts]),
    )
    fit = calibrate(ANY, SCRIPTED, taxonomies=TAXONOMIES)
    fitted = carry_out(fit, known, model=model)
    assert fitted.rows["dimension"].to_list() == ["safety", "value"]
    assert fitted.rows["prompts"].to_list() == [18, 18]
    assert [len(vectors) for vectors in fitted.rows["vectors"]] == [
        len(SAFETY.labels) + 1,
        len(VALUE.labels) + 1,
    ]  # and none
    assert fitted.rows["parents"].to_list() == [known["row_id"].to_list()] * 2
    embedding = embed(ANY, Parts(), SCRIPTED)
    scoring = score_labels_by_embedding(embedding, fit, taxonomies=TAXONOMIES)
    keeping = classify(ANY, Labelling(), scoring, taxonomies=TAXONOMIES)
    new = prompts("to steal and be rich", "fraud lacks wisdom")
    embedded = carry_out(embedding, new, model=model)
    assert embedded.rows["vector"].to_list() == model.embed(new["prompt"].to_list()).tolist()
    scored = carry_out(scoring, embedded.rows, fitted.rows)
    assert scored.rows["prompt_id"].to_list() == new["row_id"].to_list()
    made = carry_out(keeping, new, scored.rows)
    assert made.rows["parents"].to_list() == [[score] for score in scored.rows["row_id"]]
    labels = [[label["label"] for label in row] for row in made.rows["labels"]]
    assert labels == [["safety/theft", "value/wealth"], ["safety/fraud", "value/wisdom"]]
    for probabilities, kept in zip(made.rows["probabilities"], labels, strict=True):
        assert [label for label, p in zip(LABEL_IDS, probabilities, strict=True) if p >= 0.5] == kept


def test_scores_by_embedding_of_a_row_do_not_depend_on_the_rows_beside_it() -> None:
    random = np.random.default_rng(7)
    fitted = pl.DataFrame(
        {
            "dimension": ["safety", "value"],
            "vectors": [random.normal(size=(31, 384)).tolist(), random.normal(size=(68, 384)).tolist()],
            "coefficients": [Calibration(intercepts=(0.0,) * size).model_dump_json() for size in (31, 68)],
        }
    )
    vectors = pl.Series("vector", random.normal(size=(400, 384)).astype(np.float32))
    ids = pl.Series([str(number) for number in range(400)])
    rows = pl.DataFrame([vectors]).with_columns(row_id=ids, prompt_id=ids)
    score = score_labels_by_embedding.function
    whole = score(rows, fitted, taxonomies=TAXONOMIES).rows
    for left in (rows.filter(ids != "100"), rows.head(1), rows.tail(7), rows.reverse()):
        same = left.select("row_id").join(whole, on="row_id", maintain_order="left")
        assert score(left, fitted, taxonomies=TAXONOMIES).rows.equals(same)


@pytest.mark.parametrize("route", ["exhaustive", "shortlist"])
def test_the_routes_run_on_builtin_prompts_and_templates_in_parts(tmp_path: Path, route: str) -> None:
    taxonomies = builtin_taxonomies()
    labels = [label.id for each in taxonomies for label in each.labels]
    read = ingested(MEASURE, ReadOptions(limit=7), taxonomies=taxonomies)
    stages, model = [read], ModelSpec(engine="scripted", model="labeller", options={"yes_rate": 0.1})
    if route == "shortlist":
        stages.append(shortlist_by_code(read, RankingByCode(shortlist=3, part_rows=3), model, taxonomies=taxonomies))
    scores = score_labels(stages[-1], Asking(part_rows=3), model, taxonomies=taxonomies)
    stages += [scores, classify(stages[-1], Labelling(), scores, taxonomies=taxonomies)]
    loom = runner(Store(tmp_path))
    made: dict[str, Manifest] = {}
    for stage in stages:
        inputs, sides = ([made[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        manifest, _ = loom.run(stage, inputs, sides)
        made[stage.name] = manifest
    rows = loom.store.scan(manifest.ref).collect()
    assert rows.height == 7
    asked = 111 if route == "exhaustive" else 9
    for probabilities, kept in rows.select("probabilities", "labels").iter_rows():
        assert len(probabilities) == 111
        assert sum(value is not None for value in probabilities) == asked
        found = [
            label for label, value in zip(labels, probabilities, strict=True) if value is not None and value >= 0.5
        ]
        assert [label["label"] for label in kept] == found
