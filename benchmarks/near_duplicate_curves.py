"""Precision and recall on pairs judged by people, over tau and over the shingle Jaccard.

`--data` names a folder with sts2016_pairs.parquet, sick_pairs.parquet and plagiarised_short_answers.parquet. What
counts as a repeat: in STS 2016 (three sets) a score of at least 4 out of 5; in SICK, where pairs often share words but
not meaning, a relatedness of at least 4.5 out of 5; in the short answers near copies (`cut`) and light revisions of a
source, as opposed to answers written without it. The rule is the stage's: nearer than tau, and a Jaccard of at least
the threshold. Figures with an empty denominator are left out. `best tau` has the highest F1.
`--embedders` names encoders as `engine:model`; the cosines of each get a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from common import Report, parser

from normloom.models import Embedder, ModelSpec, load_model
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.simhash import fingerprints, jaccards, pack

Sets = dict[str, tuple[list[tuple[str, str]], npt.NDArray[np.bool_]]]

TAUS = (4, 7, 10, 14, 17, 20, 24, 65)
JACCARDS = (0.0, 0.3, 0.5, 0.7)
COSINES = (0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.98)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--char-ngrams", type=int, nargs="*", default=[4])
    arguments.add_argument("--word-ngrams", type=int, nargs="*", default=[])
    arguments.add_argument("--embedders", nargs="*", default=[], help="such as embedding:all-MiniLM-L6-v2")
    given = arguments.parse_args()
    report = Report(given.json)
    features = Features(char_ngrams=tuple(given.char_ngrams), word_ngrams=tuple(given.word_ngrams))
    summary = []
    for name, (pairs, repeats) in labelled_pairs(given.data).items():
        packed = pack([text for pair in pairs for text in pair])
        codes = fingerprints(packed, features)
        left = np.arange(0, 2 * len(pairs), 2)
        distance = np.bitwise_count(codes[left] ^ codes[left + 1])
        similarity = jaccards(packed, left, left + 1, features)
        curves = [
            {"tau": "any" if tau > 64 else tau, "jaccard": threshold}
            | quality((distance < tau) & (similarity >= threshold), repeats)
            for threshold in JACCARDS
            for tau in TAUS
        ]
        report.add(f"{name}: {len(pairs):,} pairs, {repeats.sum():,} repeats", curves)
        summary.append({"set": name, **best(distance, similarity, repeats)})
    report.add("Highest F1 of each rule alone", summary)
    for embedder in given.embedders:
        add_cosines(embedder, labelled_pairs(given.data), report)
    report.end()


def add_cosines(embedder: str, sets: Sets, report: Report) -> None:
    """Add the tables of an encoder: precision and recall over the cosine, and where F1 is highest."""
    engine, _, name = embedder.partition(":")
    model = cast("Embedder", load_model(ModelSpec(engine=engine, model=name)))
    curves, summary = [], []
    for title, (pairs, repeats) in sets.items():
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        vectors = dict(zip(texts, model.embed(texts), strict=True))
        cosine = np.array([vectors[one] @ vectors[other] for one, other in pairs])
        curves += [{"set": title, "cosine": least} | quality(cosine >= least, repeats) for least in COSINES]
        by_cosine = {k / 100: quality(cosine >= k / 100, repeats)["F1"] for k in range(101)}
        best_one = max(by_cosine, key=lambda k: by_cosine[k] or 0)
        summary.append({"set": title, "best cosine": best_one, "F1": by_cosine[best_one]})
    report.add(f"{name}: cosine", curves)
    report.add(f"{name}: highest F1", summary)


def quality(found: npt.NDArray[np.bool_], repeats: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return precision, recall and F1 of a rule."""
    right = int((found & repeats).sum())
    return {
        "found": int(found.sum()),
        "precision": right / found.sum() if found.any() else None,
        "recall": right / repeats.sum() if repeats.any() else None,
        "F1": 2 * right / (found.sum() + repeats.sum()) if found.any() or repeats.any() else None,
    }


def best(
    distance: npt.NDArray[np.uint8], similarity: npt.NDArray[np.float64], repeats: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the thresholds at which each rule alone has its highest F1."""
    by_tau = {tau: quality(distance < tau, repeats)["F1"] for tau in range(1, 65)}
    by_jaccard = {k / 100: quality(similarity >= k / 100, repeats)["F1"] for k in range(101)}
    tau, jaccard = max(by_tau, key=lambda t: by_tau[t] or 0), max(by_jaccard, key=lambda t: by_jaccard[t] or 0)
    return {"best tau": tau, "F1 of tau": by_tau[tau], "best jaccard": jaccard, "F1 of jaccard": by_jaccard[jaccard]}


def labelled_pairs(folder: Path) -> Sets:
    """Return the pairs of texts of each set, and which of them are repeats."""
    sets = {}
    for (name,), rows in pl.read_parquet(folder / "sts2016_pairs.parquet").group_by("set", maintain_order=True):
        sets[f"STS 2016 {name}"] = (rows.select("text_a", "text_b").rows(), (rows["score"] >= 4).to_numpy())
    sick = pl.read_parquet(folder / "sick_pairs.parquet")
    sets["SICK"] = (sick.select("text_a", "text_b").rows(), (sick["relatedness"] >= 4.5).to_numpy())
    answers = pl.read_parquet(folder / "plagiarised_short_answers.parquet")
    sources = answers.filter(category="orig").select("task", source="text")
    others = answers.filter(pl.col("category").is_in(["cut", "light", "non"])).join(sources, on="task")
    repeats = (others["category"] != "non").to_numpy()
    sets["short answers"] = (others.select("source", "text").rows(), repeats)
    return sets


if __name__ == "__main__":
    main()
