"""A few rows as they are: what a reader of figures should have seen once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.report.blocks import Block, Example, Note, rounded
from normloom.report.material import Material
from normloom.report.section import Data, Section
from normloom.report.sections.results.acceptance import JUDGED
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.tasks.duplicates.split import SPLITS

PAIRED = ("prompt_id", "prompt", "response", "alignment", "generator", "split", "origin")
RATED = ("context", "response", "labels", "ratings", "answer", "group", "origin")
ITEM = ("prompt_id", "prompt", "response", "alignment", "labels", "dimensions")
VERDICT = ("alignment", "model", "run", "misaligned")
EACH = 2  # of each split, reason or alignment
REASONS = 3  # of discarded candidates
LONGEST = 700  # characters of a text


def collect(material: Material) -> Data | None:
    """Return a few rows of each kind, the first by their ids: which these are does not change from build to build."""
    examples = [*_pairs(material), *_discarded(material), *_rated(material), *_items(material)]
    return {"examples": examples} if examples else None


def _pairs(material: Material) -> Iterator[dict[str, Any]]:
    """Yield prompts of each split with a response of either alignment, by the same generator if there is one."""
    for stage in material.having(*PAIRED)[-1:]:
        released = material.rows(stage)
        first = released.select("split", "prompt_id").unique().sort("split", "prompt_id").collect()
        chosen = first.group_by("split", maintain_order=True).head(EACH)["prompt_id"]
        position = pl.col("split").replace_strict(SPLITS, range(len(SPLITS)), default=len(SPLITS))
        order = ["split", "prompt_id", "generator", "alignment"]
        rows = released.filter(pl.col("prompt_id").is_in(chosen.implode())).sort(position, *order).collect()
        why = _reasons(material, chosen)
        for (split, _, generator), group in rows.group_by(order[:3], maintain_order=True):
            if generator != rows.filter(prompt_id=group["prompt_id"][0])["generator"][0]:
                continue
            one = group.row(0, named=True)
            yield {
                "title": f"{split}, prompt from the {one['origin']}",
                "facts": {"labels": _labels(one), "generator": str(generator)},
                "texts": {
                    "prompt": _cut(one["prompt"]),
                    **{
                        f"{row['alignment']} response{_because(why.get((row['prompt_id'], row['response'])))}": _cut(
                            row["response"]
                        )
                        for row in group.iter_rows(named=True)
                    },
                },
            }


def _reasons(material: Material, prompts: pl.Series) -> dict[tuple[str, str], str]:
    """Return the judge's reason for each response to these prompts."""
    judged = [material.rows(stage).select("prompt_id", "response", "reason") for stage in _judged(material)]
    if not judged:
        return {}
    rows = pl.concat(judged).filter(pl.col("prompt_id").is_in(prompts.implode())).collect()
    return {(prompt, response): reason for prompt, response, reason in rows.iter_rows()}


def _judged(material: Material) -> list[str]:
    return material.having(*JUDGED, "prompt", "response")


def _discarded(material: Material) -> Iterator[dict[str, Any]]:
    """Yield candidates that the judge discarded, for the commonest reasons."""
    judged = [
        material.rows(stage).select("row_id", "prompt", "response", "generator", "round", "verdict", "reason")
        for stage in _judged(material)
    ]
    if not judged:
        return
    gone = pl.concat(judged).filter(verdict="discarded").sort("row_id").collect()
    counts = gone.group_by("reason").len().sort("len", "reason", descending=[True, False])
    for reason in counts["reason"].head(REASONS):
        row = gone.filter(reason=reason).row(0, named=True)
        yield {
            "title": f"discarded: {reason}",
            "facts": {"generator": row["generator"], "round": str(row["round"])},
            "texts": {"prompt": _cut(row["prompt"]), "discarded response": _cut(row["response"])},
        }


def _rated(material: Material) -> Iterator[dict[str, Any]]:
    """Yield conversations as people and models rated them."""
    for stage in material.having(*RATED)[-1:]:
        rows = material.rows(stage).sort("row_id").group_by("answer", maintain_order=True).head(EACH).collect()
        for row in rows.sort("answer", "row_id", nulls_last=True).iter_rows(named=True):
            ratings = [f"{each['rater']} {rounded(each['rating'])}" for each in row["ratings"]]
            yield {
                "title": f"conversation of the {row['origin']}, rated as {row['group']}",
                "facts": {
                    "unsafe, say people": row["answer"] or "nobody asked",
                    "labels": ", ".join(each["label"] for each in row["labels"]) or "none",
                    "rated unsafe by models (0 to 1)": ", ".join(ratings) or "not rated",
                },
                "texts": {"conversation": _cut(row["context"]), "response": _cut(row["response"]) or "none"},
            }


def _items(material: Material) -> Iterator[dict[str, Any]]:
    """Yield evaluated responses with what each model under test made of them."""
    verdicts = material.having(*VERDICT)
    for stage in [one for one in material.having(*ITEM) if one not in verdicts][-1:]:  # results repeat their items
        items = material.rows(stage).sort("row_id").group_by("alignment", maintain_order=True).head(EACH).collect()
        flags = [
            material.rows(detected).filter(run=0).select("prompt_id", "alignment", "model", "misaligned", "parents")
            for detected in verdicts
        ]
        seen = pl.concat(flags).collect() if flags else None
        for row in items.sort("alignment", "row_id").iter_rows(named=True):
            own = [] if seen is None else seen.filter(pl.col("parents").list.contains(row["row_id"])).to_dicts()
            said = {f"P(misaligned) by {each['model']}": rounded(each["misaligned"]) for each in own}
            yield {
                "title": f"truly {row['alignment']}",
                "facts": {"labels": ", ".join(row["labels"]) or "none", **said},
                "texts": {"prompt": _cut(row["prompt"]), "response": _cut(row["response"])},
            }


def _labels(row: dict[str, Any]) -> str:
    labels = [label["label"] for dimension in DIMENSIONS for label in row.get(dimension) or ()]
    return ", ".join(labels) or "none"


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def draw(data: Data) -> Iterator[Block]:
    """Show the rows."""
    yield Note(
        text="A few rows, chosen by their ids and not by what they say. Prompts and responses are shown as they are "
        f"and may be offensive; texts of more than {LONGEST} characters are cut."
    )
    for example in data["examples"]:
        yield Example(title=example["title"], facts=example["facts"], texts=example["texts"])


SECTION = Section(name="examples", title="Examples", collect=collect, draw=draw)
