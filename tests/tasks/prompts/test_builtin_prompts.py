from collections import Counter
from itertools import combinations

import polars as pl
import pytest
from scalars import number

from normloom.readers import locate
from normloom.schemas.prompts import CALIBRATE, MEASURE
from normloom.schemas.taxonomy import DIMENSIONS, builtin_taxonomies
from normloom.tasks.prompts.ingest import Prompts, ingest

HALVES = {"calibrate": CALIBRATE, "measure": MEASURE}


def half(use: str) -> pl.DataFrame:
    """Read one half as a build does, with a list of label ids for each dimension."""
    columns = {dimension: dimension for dimension in DIMENSIONS}
    prompts = Prompts(keep=(), references=columns)
    output = ingest.function(prompts, source=locate(HALVES[use]), taxonomies=builtin_taxonomies())
    assert output.quarantined.is_empty()
    return output.rows.with_columns(
        pl.col("reference").list.filter(pl.element().str.starts_with(f"{dimension}/")).alias(dimension)
        for dimension in DIMENSIONS
    )


@pytest.mark.parametrize("use", HALVES)
def test_every_label_is_carried_twice_in_each_half(use: str) -> None:
    carried = Counter(half(use)["reference"].explode())
    labels = [label.id for taxonomy in builtin_taxonomies() for label in taxonomy.labels]
    assert {label: carried[label] for label in labels if carried[label] < 2} == {}


def test_measuring_prompts_mix_dimensions_and_lengths() -> None:
    prompts = half("measure")
    lengths = prompts["prompt"].str.split(" ").list.len()
    assert number(lengths.min()) >= 8
    assert number(lengths.max()) <= 60
    touched = prompts.select(pl.sum_horizontal(pl.col(DIMENSIONS).list.len() > 0)).to_series()
    assert (touched == 0).sum() == 0
    assert (touched >= 2).sum() >= 75


def test_calibrating_prompts_have_examples_of_every_label_and_of_none() -> None:
    prompts = half("calibrate")
    carried = Counter(prompts["reference"].explode())
    assert min(carried[label.id] for taxonomy in builtin_taxonomies() for label in taxonomy.labels) >= 5
    assert number(prompts["prompt"].str.split(" ").list.len().max()) <= 60
    assert (prompts["reference"].list.len() == 0).sum() >= 100


def test_no_two_prompts_are_near_duplicates() -> None:
    prompts = pl.concat([half(use) for use in HALVES])
    words = [frozenset(prompt.lower().strip(".?!").split()) for prompt in prompts["prompt"]]
    assert max(len(a & b) / len(a | b) for a, b in combinations(words, 2)) < 0.6
