"""How good labels by embedding are on sets that had no part in making them, one set at a time.

Routes: `cosine` of a prompt and "name: definition", kept above the threshold with the best F1 on the built-in
prompts; `shipped`, what a build does, fitted on the built-in prompts alone; and with --public `public`, fitted on
those and on every public set of the dimension except the one being measured (leave one set out).

top-1: share of labelled prompts whose best label is right. Precision: share of kept labels that are right. Recall:
share of labelled prompts with at least one right label kept; macro: the mean over the source's categories.
False: share of prompts without a label that are given one anyway. Intervals: bootstrap over prompts, 95 %.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import Clock, Report, parser
from label_sets import DATA, LabelSet, label_sets

from normloom.core.models.protocol import ModelSpec
from normloom.models import load_model
from normloom.schemas.prompts import CALIBRATE
from normloom.schemas.taxonomy import DIMENSIONS, Taxonomy, builtin_taxonomies
from normloom.tasks.prompts.calibration import best_threshold, label_texts, probabilities, train

ENCODERS = {
    "use": ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3"),
    "minilm": ModelSpec(engine="embedding", model="all-MiniLM-L6-v2"),
}
DRAWS = 1000
Embed = Callable[[list[str]], np.ndarray]
Route = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # vectors -> scores, which are kept


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--encoders", nargs="+", choices=ENCODERS, default=["use"])
    arguments.add_argument("--dimensions", nargs="+", choices=DIMENSIONS, default=list(DIMENSIONS))
    arguments.add_argument("--rows", type=int, default=400, help="maximum number of prompts drawn from a set")
    arguments.add_argument("--public", action="store_true", help="also fit on the public sets that are not measured")
    arguments.add_argument(
        "--harmless", type=Path, help="a text file of harmless prompts, one per line, as an additional set"
    )
    given = arguments.parse_args()
    report = Report(given.json)
    sets = [each for each in label_sets(given.rows, given.harmless) if each.dimension in given.dimensions]
    for encoder in given.encoders:
        clock = Clock()
        embed = remembering(load_model(ENCODERS[encoder], threads=1).embed, clock)
        rows = []
        for dimension in given.dimensions:
            taxonomy = next(each for each in builtin_taxonomies() if each.dimension == dimension)
            rows += measured(
                taxonomy, [each for each in sets if each.dimension == dimension], embed, public=given.public
            )
            report.note(f"{encoder}: {dimension} done")
        report.add(f"Labels by embedding with {encoder}", rows)
        report.add(f"The same prompts in other languages, {encoder}", languages(embed))
        report.add(f"Rate of {encoder}, one thread", [{"texts": clock.texts, "texts/s": clock.texts / clock.wall}])
    report.end()


def measured(taxonomy: Taxonomy, sets: list[LabelSet], embed: Embed, *, public: bool) -> list[dict[str, Any]]:
    """Return a row for each set and route."""
    fixed = {"cosine": cosine(taxonomy, embed), "shipped": fitted(taxonomy, embed, [])}
    found = []
    for each in sets:
        routes = dict(fixed)
        if public and each.source != "built-in":
            family = each.source.split(",")[0]
            others = [one for one in sets if one.source.split(",")[0] not in (family, "built-in")]
            routes["public"] = fitted(taxonomy, embed, others)
        truth = carried(taxonomy, each.references)
        for name, route in routes.items():
            scores, kept = route(embed(list(each.prompts)))
            row = {"dimension": taxonomy.dimension, "set": each.source, "n": len(truth), "route": name}
            found.append(row | figures(scores, kept, truth))
    return found


def cosine(taxonomy: Taxonomy, embed: Embed) -> Route:
    """Return the route by the plain cosine of prompt and "name: definition"."""
    labels = embed([f"{label.name}: {label.definition}" for label in taxonomy.labels])
    prompts, truth = builtin(taxonomy)
    threshold = best_threshold(embed(prompts) @ labels.T, truth)
    return lambda vectors: (vectors @ labels.T, vectors @ labels.T >= threshold)


def fitted(taxonomy: Taxonomy, embed: Embed, others: list[LabelSet]) -> Route:
    """Return the route of a build, fitted on the built-in prompts and on `others`."""
    prompts, truth = builtin(taxonomy)
    texts = np.stack([embed(list(label_texts(label))) for label in taxonomy.labels])
    vectors = np.vstack([embed(prompts), *(embed(list(each.prompts)) for each in others)])
    truth = np.vstack([truth, *(carried(taxonomy, each.references) for each in others)])
    learned, calibration = train(texts, vectors, truth)

    def route(prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = probabilities(prompts @ learned.T, calibration)
        return scores, scores >= 0.5

    return route


def figures(scores: np.ndarray, kept: np.ndarray, truth: np.ndarray) -> dict[str, str | None]:
    """Return the measures of the docstring above, each with its interval."""
    labelled = truth.any(axis=1)
    right = kept & truth
    first = truth[np.arange(len(truth)), scores.argmax(axis=1)]
    groups = np.unique(truth, axis=0, return_inverse=True)[1].ravel()
    draws = np.random.default_rng(0).integers(len(truth), size=(DRAWS, len(truth)))

    def told(value: Callable[[np.ndarray], float]) -> str:
        whole = value(np.arange(len(truth)))
        low, high = np.nanpercentile([value(draw) for draw in draws], [2.5, 97.5])
        return f"{whole:.2f} ({low:.2f} to {high:.2f})"

    def recall(rows: np.ndarray) -> float:
        return float(right[rows].any(axis=1)[labelled[rows]].mean())

    def precision(rows: np.ndarray) -> float:
        return float(right[rows].sum() / max(kept[rows].sum(), 1))

    def f1(rows: np.ndarray) -> float:
        p, r = precision(rows), recall(rows)
        return 2 * p * r / (p + r) if p + r else 0.0

    def macro(rows: np.ndarray) -> float:
        members = [rows[(groups[rows] == group) & labelled[rows]] for group in np.unique(groups[rows])]
        return float(np.mean([right[each].any(axis=1).mean() for each in members if len(each)]))

    some, none = bool(labelled.any()), bool((~labelled).any())
    return {
        "top-1": told(lambda rows: float(first[rows][labelled[rows]].mean())) if some else None,
        "precision": told(precision) if some else None,
        "recall": told(recall) if some else None,
        "F1": told(f1) if some else None,
        "macro recall": told(macro) if some else None,
        "false": told(lambda rows: float(kept[rows].any(axis=1)[~labelled[rows]].mean())) if none else None,
    }


def languages(embed: Embed) -> list[dict[str, Any]]:
    """Return how far the safety labels of translated captions (Multi3Hate) agree with those of the English ones."""
    safety = builtin_taxonomies()[0]
    route = fitted(safety, embed, [])
    items = pl.read_parquet(DATA / "multi3hate" / "items.parquet").filter(pl.col("text_en").str.len_chars() > 0)
    found, english = [], None
    for language in ("en", "de", "es", "zh", "hi"):
        scores, kept = route(embed([text.replace("<sep>", " ") for text in items[f"text_{language}"]]))
        english = (scores, kept) if english is None else english
        either = (kept | english[1]).sum()
        found.append(
            {
                "language": language,
                "n": items.height,
                "with a label": float(kept.any(axis=1).mean()),
                "same best label": float((scores.argmax(axis=1) == english[0].argmax(axis=1)).mean()),
                "Jaccard of kept": float((kept & english[1]).sum() / max(either, 1)),
            }
        )
    return found


def builtin(taxonomy: Taxonomy) -> tuple[list[str], np.ndarray]:
    """Return the built-in calibrating prompts and which labels they carry."""
    read = pl.read_csv(CALIBRATE)
    cells = read[taxonomy.dimension].fill_null("")
    return read["prompt"].to_list(), carried(taxonomy, tuple(frozenset(cell.split(";")) for cell in cells))


def carried(taxonomy: Taxonomy, references: tuple[frozenset[str], ...]) -> np.ndarray:
    """Return which labels are right, shape (prompts, labels)."""
    return np.array([[label.id in reference for label in taxonomy.labels] for reference in references])


def remembering(embed: Callable[[list[str]], np.ndarray], clock: Any) -> Embed:
    """Return `embed` with a memory of the texts that it has seen, timed by `clock`."""
    seen: dict[str, np.ndarray] = {}
    clock.texts = 0

    def remembered(texts: list[str]) -> np.ndarray:
        new = list(dict.fromkeys(text for text in texts if text not in seen))
        with clock.running():
            seen.update(zip(new, embed(new), strict=True))
        clock.texts += len(new)
        return np.stack([seen[text] for text in texts])

    return remembered


if __name__ == "__main__":
    main()
