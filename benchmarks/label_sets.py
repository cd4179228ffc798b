"""Public sets (../shared/data) and the labels that their categories map to: the tables behind labels.py.

A prompt's reference is the set of labels that are right for it: if a category of the source covers several
of ours, each of them is. An empty set means harmless: no safety label is right. Categories without a counterpart
(HarmBench's cybercrime and its contextual behaviours, BLEnD's education, family and work) are left out.
Licences are in each set's SOURCE.md. The repository contains none of these sets, and nothing was fitted on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from normloom.schemas.prompts import MEASURE
from normloom.schemas.taxonomy import DIMENSIONS, builtin_taxonomies

DATA = Path(__file__).parents[2] / "shared" / "data"
NOTHING: frozenset[str] = frozenset()
_IDS = {label.name: label.id for taxonomy in builtin_taxonomies() for label in taxonomy.labels}

# Each word begins the id of one safety label.
_SIMPLE_SAFETY = {
    "Scams and fraud": "financial",
    "Physical harm and Violence": "violence terrorism",
    "Illegal and Highly Regulated items": "drug",
    "Suicide, Self-Harm, and Eating Disorders": "self",
}
_STRONGREJECT = {
    "Illegal goods and services": "drug financial terrorism",
    "Violence": "violence terrorism",
    "Sexual content": "sexually",
    "Non-violent crimes": "financial non privacy",
    "Disinformation and deception": "misinformation controversial",
    "Hate, harassment and discrimination": "hate discrimination",
}
_HARMBENCH = {
    "chemical_biological": "drug terrorism",
    "copyright": "",
    "harassment_bullying": "hate discrimination",
    "illegal": "financial drug terrorism privacy violence",
    "misinformation_disinformation": "misinformation controversial",
}
_BLEND = {"Food": "culinary", "Sport": "folk", "Holidays/Celebration/Leisure": "festivals"}
# The values that the annotators of ValueEval'23 were shown under each category.
_VALUES = {
    "Self-direction: thought": "creativity curiosity freedom",
    "Self-direction: action": "choosing_own_goals independence freedom",
    "Stimulation": "exciting_life varied_life daring",
    "Hedonism": "pleasure enjoyment_of_leisure",
    "Achievement": "ambitious successful capable intelligent daring",
    "Power: dominance": "influential authority social_power",
    "Power: resources": "wealth",
    "Face": "social_recognition preserve_public_image",
    "Security: personal": "sense_of_belonging health cleanliness pleasure",
    "Security: societal": "national_security social_order",
    "Tradition": "respect_for_tradition devoutness",
    "Conformity: rules": "obedience self_discipline",
    "Conformity: interpersonal": "politeness honoring_parents_elders",
    "Humility": "humility accepting_ones_lot",
    "Benevolence: caring": "helpfulness honesty forgiveness family_security mature_love",
    "Benevolence: dependability": "responsibility loyalty_to_group true_friendship",
    "Universalism: concern": "equality social_justice world_at_peace",
    "Universalism: nature": "protect_environment unity_with_nature beauty",
    "Universalism: tolerance": "broad_minded_tolerance wisdom",
    "Universalism: objectivity": "intelligent wisdom",
}


@dataclass(frozen=True)
class LabelSet:
    """Prompts of one source and the labels of one dimension that are right for each."""

    source: str
    dimension: str
    prompts: tuple[str, ...]
    references: tuple[frozenset[str], ...]


def label_sets(rows: int, harmless: Path | None = None) -> list[LabelSet]:
    """Return every set, at most `rows` prompts drawn with a seed from each; `harmless` is a text of a prompt a line."""
    found = [*_safety(rows), *_savacu(rows), _blend(rows), _value_arguments(rows), *_own()]
    if harmless:
        prompts = tuple(line for line in harmless.read_text().splitlines() if line.strip())
        found.append(LabelSet(harmless.stem, "safety", prompts, (NOTHING,) * len(prompts)))
    return found


def _safety(rows: int) -> Iterable[LabelSet]:
    beavertails = _read("beavertails_sample/prompts.parquet", rows)
    words = [_first_word(category) for category in beavertails["category"]]
    yield _set("beavertails", "safety", beavertails["prompt"], map(_any_of("safety"), words))
    simple = _read("simple_safety_tests/prompts.parquet", rows)
    yield _set(
        "simple_safety_tests", "safety", simple["prompt"], _mapped("safety", simple["harm_area"], _SIMPLE_SAFETY)
    )
    strong = _read("strongreject/prompts.parquet", rows)
    references = _mapped("safety", strong["category"], _STRONGREJECT)
    yield _set("strongreject", "safety", strong["forbidden_prompt"], references)
    categories = pl.col("semantic_category").is_in(list(_HARMBENCH)) & (pl.col("functional_category") != "contextual")
    harmbench = _read("harmbench/behaviors_text_all.parquet", rows, categories)
    references = _mapped("safety", harmbench["semantic_category"], _HARMBENCH)
    yield _set("harmbench", "safety", harmbench["behavior"], references)
    tweets = _read("hate_speech_tweets/labeled_tweets.parquet", rows, pl.col("class") < 2)  # hate, offensive
    yield _set("tweets", "safety", tweets["tweet"], [_any_of("safety")("hate discrimination")] * tweets.height)
    benign = (pl.col("toxicity") == 0) & (pl.col("jailbreaking") == 0)
    for source, file, column, of_it in (
        ("toxic_chat, not toxic", "toxic_chat/user_inputs.parquet", "user_input", benign),
        ("alpaca_eval", "alpaca_eval/instructions.parquet", "instruction", None),
        ("seed_tasks", "instruction_seed_tasks/tasks.parquet", "instruction", None),
        ("honeset", "honeset/queries.parquet", "query", None),
        ("blend, as harmless", "culture_blend/questions.parquet", "question_en", pl.col("region") == "US"),
    ):
        prompts = _read(file, rows, of_it)[column]
        yield _set(source, "safety", prompts, [NOTHING] * len(prompts))


def _savacu(rows: int) -> Iterable[LabelSet]:
    for dimension in DIMENSIONS:
        labelled = _read("savacu/prompts.parquet", rows, ~pl.col(dimension).is_in(["None", "Unknown"]))
        references = [frozenset({_IDS[name]}) for name in labelled[dimension]]
        yield _set("savacu", dimension, labelled["prompt"], references)
        none = _read("savacu/prompts.parquet", rows, pl.col(dimension) == "None")
        yield _set("savacu, none", dimension, none["prompt"], [NOTHING] * none.height)


def _blend(rows: int) -> LabelSet:
    asked = (pl.col("region") == "US") & pl.col("topic").is_in(list(_BLEND))
    questions = _read("culture_blend/questions.parquet", rows, asked)
    return _set("blend", "cultural", questions["question_en"], _mapped("cultural", questions["topic"], _BLEND))


def _value_arguments(rows: int) -> LabelSet:
    read = _read("value_arguments/arguments.parquet", rows)
    texts = [f"{row['conclusion']}. {row['premise']}" for row in read.iter_rows(named=True)]
    words = [" ".join(_VALUES[name] for name in _VALUES if row[name]) for row in read.iter_rows(named=True)]
    return _set("value_arguments", "value", texts, map(_any_of("value"), words))


def _own() -> Iterable[LabelSet]:
    """The built-in measuring prompts: our own writing, multi-label."""
    read = pl.read_csv(MEASURE)
    for dimension in DIMENSIONS:
        cells = read[dimension].fill_null("")
        yield _set("built-in", dimension, read["prompt"], [frozenset(filter(None, cell.split(";"))) for cell in cells])


def _read(file: str, rows: int, condition: pl.Expr | None = None) -> pl.DataFrame:
    read = pl.read_parquet(DATA / file)
    read = read if condition is None else read.filter(condition)
    return read if read.height <= rows else read.sample(rows, seed=1)


def _set(source: str, dimension: str, prompts: Iterable[str], references: Iterable[frozenset[str]]) -> LabelSet:
    return LabelSet(source, dimension, tuple(prompts), tuple(references))


def _mapped(dimension: str, categories: Iterable[str], table: dict[str, str]) -> Iterable[frozenset[str]]:
    return [_any_of(dimension)(table[category]) for category in categories]


def _any_of(dimension: str) -> Callable[[str], frozenset[str]]:
    """Return the function from words to the labels whose ids begin with one of them."""
    ids = [each for each in _IDS.values() if each.startswith(f"{dimension}/")]

    def named(words: str) -> frozenset[str]:
        starts = tuple(f"{dimension}/{word}" for word in words.split())
        return frozenset(each for each in ids if starts and each.startswith(starts))

    return named


def _first_word(category: str) -> str:
    """Return the first word of a category of BeaverTails, which is that of our label."""
    return category.replace(",", "_").split("_")[0]
