"""Rates and agreement of the labelling routes on the embedded models, in one run.

Routes: `exhaustive` (a question about every label), `codes` and `shortlist` (a shortlist by one-token
codes or by embedding, then questions about its k labels) and `embedding` (no questions). The routes that ask run with
and without prefix sharing on the same few rows, through the stages' own functions. The embedding routes use the
calibration that a build fits on the built-in calibration prompts.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import EMBEDDED, Clock, Report, parser

from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output
from normloom.models import load_model
from normloom.readers import locate
from normloom.schemas import tables
from normloom.schemas.prompts import CALIBRATE, MEASURE
from normloom.schemas.taxonomy import DIMENSIONS, Taxonomy, builtin_taxonomies
from normloom.tasks.prompts.classify import (
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
)
from normloom.tasks.prompts.ingest import Prompts, ingest
from normloom.tasks.release.measure import agreement

ENCODER = ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3")
BEAVERTAILS = Path(__file__).parents[2] / "shared" / "data" / "beavertails_sample" / "prompts.parquet"
Route = Callable[[pl.DataFrame, Any], Output]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=14, help="prompts that the asking routes label")
    arguments.add_argument("--slow-rows", type=int, default=4, help="prompts on which prefix sharing is compared")
    arguments.add_argument(
        "--source", default="builtin", help="builtin, beavertails (of ../shared/data), or a CSV, JSONL or Parquet file"
    )
    arguments.add_argument("--text-column", default="prompt", help="of a file")
    arguments.add_argument("--label-column", help="of a file: reference labels of the first dimension, separated by ;")
    arguments.add_argument("--dimensions", nargs="+", choices=DIMENSIONS, default=["safety"])
    arguments.add_argument("--k", type=int, default=4, help="labels of each dimension on a shortlist")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--skip-asking", action="store_true", help="only the embedding route")
    given = arguments.parse_args()
    taxonomies = tuple(taxonomy for taxonomy in builtin_taxonomies() if taxonomy.dimension in given.dimensions)
    report = Report(given.json)

    report.note("loading models")
    encoder: Any = load_model(ENCODER, threads=given.threads)
    every = in_turns(prompts_of(given, taxonomies))
    fitted = calibrate.function(builtin(CALIBRATE, taxonomies), encoder, taxonomies=taxonomies)
    routes = routes_of(taxonomies, given.k, encoder, fitted.rows)

    rates: list[dict[str, Any]] = []
    labelled: dict[str, pl.DataFrame] = {}
    rates.append(timed("embedding", every, routes["embedding"], None, labelled))
    if not given.skip_asking:
        sharing = load_model(EMBEDDED, threads=given.threads)
        whole = load_model(EMBEDDED.model_copy(update={"options": {"share_prefix": False}}), threads=given.threads)
        some, few = every.head(given.rows), every.head(given.slow_rows)
        for name in ("exhaustive", "codes", "shortlist"):
            routes[name](every.tail(1), sharing)  # reads the constant prefix
            report.note(f"{name}: {some.height} rows, then {few.height} with and without prefix sharing")
            rates.append(timed(name, some, routes[name], sharing, labelled))
            shared = timed(f"{name}, few", few, routes[name], sharing, labelled)
            unshared = timed(f"{name}, not shared", few, routes[name], whole, labelled)
            unshared["sharing_gains"] = unshared["cpu_s/prompt"] / shared["cpu_s/prompt"]
            unshared["off_by"] = furthest(labelled[f"{name}, few"], labelled[f"{name}, not shared"])
            rates += [shared, unshared]
    fast = next((rate for rate in rates if rate["route"] == "exhaustive"), rates[0])
    for rate in rates:
        rate["times_exhaustive"] = fast["cpu_s/prompt"] / rate["cpu_s/prompt"] if not given.skip_asking else None
    report.add(f"Rates, {' and '.join(given.dimensions)} labels, {given.threads} thread(s)", rates)

    full = {name: rows for name, rows in labelled.items() if "," not in name}
    report.add(f"Agreement of routes on the same {given.rows} rows", agreements(full, taxonomies))
    report.add(f"Quality against the reference labels of {given.source}", quality(full, taxonomies))
    if given.source == "builtin" and given.dimensions == ["safety"] and BEAVERTAILS.exists():
        others: dict[str, pl.DataFrame] = {}
        timed("embedding", beavertails(taxonomies[0]), routes["embedding"], None, others)
        report.add("Quality against BeaverTails' categories", quality(others, taxonomies))
    report.end()


def routes_of(taxonomies: tuple[Taxonomy, ...], k: int, encoder: Any, calibration: pl.DataFrame) -> dict[str, Route]:
    """Return each route as a function of rows and language model."""
    coding, ranking = RankingByCode(shortlist=k), Ranking(shortlist=k)

    def kept(rows: pl.DataFrame, scores: Output) -> Output:
        return classify.function(rows, Labelling(), scores.rows, taxonomies=taxonomies)

    def asked(rows: pl.DataFrame, model: Any) -> Output:
        return kept(rows, score_labels.function(rows, Asking(), model, taxonomies=taxonomies))

    def embedded(rows: pl.DataFrame, _: Any) -> Output:
        vectors = embed.function(rows, Parts(), encoder).rows
        return kept(rows, score_labels_by_embedding.function(vectors, calibration, taxonomies=taxonomies))

    def coded(rows: pl.DataFrame, model: Any) -> Output:
        return asked(shortlist_by_code.function(rows, coding, model, taxonomies=taxonomies).rows, model)

    def near(rows: pl.DataFrame, model: Any) -> Output:
        return asked(shortlist_by_embedding.function(rows, ranking, encoder, taxonomies=taxonomies).rows, model)

    return {
        "exhaustive": asked,
        "codes": coded,
        "shortlist": near,
        "embedding": embedded,
    }


def timed(name: str, rows: pl.DataFrame, route: Route, model: Any, labelled: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Run a route, keep what it labelled and return its rates."""
    clock = Clock()
    with clock.running():
        output = route(rows, model)
    labelled[name] = output.rows
    return {
        "route": name,
        "rows": rows.height,
        "prompts/s": rows.height / clock.wall,
        "prompts/cpu_s": rows.height / clock.cpu,
        "cpu_s/prompt": clock.cpu / rows.height,
        "sharing_gains": None,
        "off_by": None,
    }


def furthest(left: pl.DataFrame, right: pl.DataFrame) -> float:
    """Return the largest difference of probabilities that both hold."""
    pairs = zip(left["probabilities"].explode(), right["probabilities"].explode(), strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def agreements(labelled: dict[str, pl.DataFrame], taxonomies: tuple[Taxonomy, ...]) -> list[dict[str, Any]]:
    """Return for each two routes the share of equal top labels and the mean Jaccard of the labels kept."""
    found = []
    for one, other in combinations(labelled, 2):
        count = min(labelled[one].height, labelled[other].height)
        left, right = labelled[one].head(count), labelled[other].head(count)
        assert left["row_id"].equals(right["row_id"])
        kept = [jaccard(a, b) for a, b in zip(left["labels"], right["labels"], strict=True)]
        equal = np.mean(top_labels(left, taxonomies) == top_labels(right, taxonomies))
        told = [value for value in kept if value is not None]
        found.append(
            {
                "routes": f"{one} / {other}",
                "rows": count,
                "same_top": float(equal),
                "rows_with_labels": len(told),
                "jaccard": float(np.mean(told)) if told else None,
            }
        )
    return found


def top_labels(rows: pl.DataFrame, taxonomies: tuple[Taxonomy, ...]) -> np.ndarray:
    """Return the place of the most probable label, shape (prompts, dimensions)."""
    scores = np.array([[-1.0 if p is None else p for p in row] for row in rows["probabilities"].to_list()])
    ends = np.cumsum([len(taxonomy.labels) for taxonomy in taxonomies])[:-1]
    return np.stack([part.argmax(axis=1) for part in np.split(scores, ends, axis=1)], axis=1)


def jaccard(left: pl.Series, right: pl.Series) -> float | None:
    """Return the Jaccard index of the labels kept; None where both keep none."""
    a, b = ({label["label"] for label in labels} for labels in (left, right))
    return len(a & b) / len(a | b) if a | b else None


def quality(labelled: dict[str, pl.DataFrame], taxonomies: tuple[Taxonomy, ...]) -> list[dict[str, Any]]:
    """Return the product's own measures of each route, next to those of always naming the commonest label."""
    found = []
    for name, rows in labelled.items():
        kept = rows["labels"].list.len().mean()
        for measure in agreement.function(rows, taxonomies=taxonomies).rows.iter_rows(named=True):
            if measure["measure"] in {"macro_recall", "top1"} and measure["value"] is not None:
                wanted = ("dimension", "measure", "value", "prior", "prompts")
                found.append({"route": name, **{key: measure[key] for key in wanted}, "kept/prompt": kept})
    return found


def prompts_of(given: Namespace, taxonomies: tuple[Taxonomy, ...]) -> pl.DataFrame:
    """Return the source's prompts with their reference labels."""
    if given.source == "builtin":
        return builtin(MEASURE, taxonomies)
    if given.source == "beavertails":
        return beavertails(taxonomies[0])
    references = {taxonomies[0].dimension: given.label_column} if given.label_column else {}
    path = Path(given.source)
    prompts = Prompts(text_column=given.text_column, references=references, keep=())
    return identified(ingest.function(prompts, source=locate(path), taxonomies=taxonomies).rows)


def builtin(path: Path, taxonomies: tuple[Taxonomy, ...]) -> pl.DataFrame:
    """Return one half of the built-in prompts."""
    references = {taxonomy.dimension: taxonomy.dimension for taxonomy in taxonomies}
    prompts = Prompts(references=references, keep=())
    return identified(ingest.function(prompts, source=locate(path), taxonomies=taxonomies).rows)


def beavertails(taxonomy: Taxonomy) -> pl.DataFrame:
    """Return the sample of BeaverTails; a category and its label begin with the same word."""
    by_word = {first_word(label.id.partition("/")[2]): label.id for label in taxonomy.labels}
    rows = pl.read_parquet(BEAVERTAILS)
    reference = [[by_word[first_word(category)]] for category in rows["category"]]
    made = rows.select("prompt", content="prompt", origin=pl.lit("source"), source_row=pl.int_range(pl.len()))
    return identified(made.with_columns(pl.Series("reference", reference, dtype=tables.TEXTS)))


def first_word(text: str) -> str:
    """Return the letters before the first sign."""
    return re.split(r"[^a-z]", text, maxsplit=1)[0]


def identified(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with ids, as the runner would give them."""
    return rows.drop("content").with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.String))


def in_turns(rows: pl.DataFrame) -> pl.DataFrame:
    """Return labelled rows first, one of each label in turn, so that few rows hold every label."""
    by_label: dict[str, list[int]] = {}
    rest = []
    for place, reference in enumerate(rows["reference"].to_list()):
        if reference:
            by_label.setdefault(reference[0], []).append(place)
        else:
            rest.append(place)
    turns = [place for turn in zip_longest(*(by_label[label] for label in sorted(by_label))) for place in turn]
    return rows[[place for place in turns if place is not None] + rest]


if __name__ == "__main__":
    main()
