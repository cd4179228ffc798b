"""Explanations in four slots, each of which cites mentions or facts of the meme; and what their evidence is worth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import meme_tables
from normloom.schemas.media.knowledge_tables import SYMBOLS
from normloom.schemas.media.meme_tables import ADAPTER, CITED, ENRICHED, TEST
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.cross_align.evidence import Unit, units_of
from normloom.tasks.cross_align.training.hard_pairs import matrix
from normloom.tasks.cross_align.verdicts import judged

BY_TEMPLATE = "template"
SLOTS = ("visual", "textual", "cultural", "verdict")
_CITED = re.compile(r"\[([mf]\d+(?:, [mf]\d+)*)\]")
_LIBRARIES = ("torch", "safetensors", "numpy")
_OF_TEST = each(pl.when(pl.col("split") == TEST).then(1).otherwise(0))


class Explaining(Args):
    """How much evidence an explanation cites."""

    cited: int = Field(2, ge=1, description="pieces of evidence: those without which the verdict loses most")


@step(makes=meme_tables.EXPLANATIONS, libraries=_LIBRARIES, fan_out=_OF_TEST)
def explanations(
    rows: pl.DataFrame,
    args: Explaining,
    mentions: pl.DataFrame,
    facts: pl.DataFrame,
    verdicts: pl.DataFrame,
    vectors: pl.DataFrame,
    *,
    adapters: ProductFiles,
) -> Output:
    """Return an explanation of the enriched verdict of each test meme; one without facts is dropped: `no_evidence`.

    `vectors` are those of the texts without one piece of evidence (`without_each`). Cited are the pieces whose loss
    lowers the probability of the verdict most.
    """
    units = units_of(mentions, facts)
    told = verdicts.filter(variant=ENRICHED, method=ADAPTER, split=TEST)
    judgement = {row["meme_id"]: row for row in told.iter_rows(named=True)}
    drops = drops_of(told, vectors, adapters.path)
    surfaces = dict(mentions.select("mention_id", "surface").iter_rows())
    asked = rows.filter(split=TEST)
    having = pl.col("meme_id").is_in(list(units))
    made = []
    for meme in asked.filter(having).iter_rows(named=True):
        name = meme["meme_id"]
        weighed = sorted(units[name], key=lambda unit: (-drops[unit.name], unit.start))
        chosen = sorted(weighed[: args.cited], key=lambda unit: unit.start)
        made.append({"row_id": meme["row_id"], **_explained(judgement[name], chosen, surfaces, seen=meme["media_id"])})
    schema = {"row_id": pl.String(), **meme_tables.EXPLANATIONS.columns}
    return Output(
        rows=pl.DataFrame(made, schema=schema),
        dropped=dropped_rows(asked.filter(~having), reason="no_evidence"),
        attempts=asked.height,
    )


@step(makes=meme_tables.FAITHFULNESS, libraries=_LIBRARIES, fan_out=each())
def faithfulness(
    rows: pl.DataFrame,
    deletions: pl.DataFrame,
    verdicts: pl.DataFrame,
    vectors: pl.DataFrame,
    *,
    adapters: ProductFiles,
) -> pl.DataFrame:
    """Return how far the probability of each explained verdict falls without what is cited, and without as much at
    random, the mean of its draws.
    """
    told = verdicts.filter(variant=ENRICHED, method=ADAPTER)
    drops = drops_of(told, vectors, adapters.path)
    fell = deletions.select("meme_id", "unit", drop=pl.col("item_id").replace_strict(drops, return_dtype=pl.Float64))
    means = fell.group_by("meme_id").agg(
        drop_cited=pl.col("drop").filter(pl.col("unit") == CITED).mean(),
        drop_random=pl.col("drop").filter(pl.col("unit") != CITED).mean(),
    )
    joined = rows.select("row_id", "meme_id", "task").join(means, on="meme_id", how="left", maintain_order="left")
    return joined.select("row_id", *meme_tables.FAITHFULNESS.columns)


def drops_of(verdicts: pl.DataFrame, vectors: pl.DataFrame, folder: Path) -> dict[str, float]:
    """Return by how much the probability of a meme's verdict is lower in each text with evidence taken away.

    `vectors` name the meme in `item_id`, before a colon and what is taken away.
    """
    own = {row["meme_id"]: row for row in verdicts.iter_rows(named=True)}
    found: dict[str, float] = {}
    texts = vectors.with_columns(meme_id=pl.col("item_id").str.replace(r":[^:]*$", "")).join(
        verdicts.select("meme_id", "task"), on="meme_id", how="left", maintain_order="left"
    )
    for (task,), some in texts.group_by("task", maintain_order=True):
        classes, chances = judged(folder, str(task), ENRICHED, matrix(some["vector"]))
        for item, meme, row in zip(some["item_id"], some["meme_id"], chances, strict=True):
            verdict = own[meme]
            found[item] = verdict["probability"] - float(row[classes.index(verdict["label_hat"])])
    return found


def _explained(
    verdict: Mapping[str, Any], cited: Sequence[Unit], surfaces: Mapping[str, str], *, seen: str | None
) -> dict[str, Any]:
    """Return the four slots of an explanation; each names the ids that it rests on in brackets."""
    words = {unit: f"“{surfaces[unit.name]}”" for unit in cited}
    shown = next((unit for unit in cited if SYMBOLS in unit.sources), cited[0])
    where = "The picture says" if seen else "The text of the meme, read off its picture, says"
    marked = " and ".join(f"{words[unit]} {_ids(unit.mentions)}" for unit in cited)
    known = "; ".join(
        f"{sentence.rstrip('.')} {_ids([fact])}"
        for unit in cited
        for sentence, fact in zip(unit.sentences, unit.facts, strict=True)
    )
    mentions = [mention for unit in cited for mention in unit.mentions]
    brought = [fact for unit in cited for fact in unit.facts]
    return {
        **{name: verdict[name] for name in ("meme_id", "task", "label", "label_hat", "probability")},
        "visual": f"{where} {words[shown]} {_ids(shown.mentions)}.",
        "textual": f"The words that weigh most are {marked}.",
        "cultural": f"What is known of them: {known}.",
        "verdict": f"Therefore: {verdict['label_hat']} (probability {verdict['probability']:.2f}) "
        f"{_ids([*mentions, *brought])}.",
        "cited_ids": [*mentions, *brought],
        "written_by": BY_TEMPLATE,
    }


def _ids(ids: Sequence[str]) -> str:
    return f"[{', '.join(one.rpartition(':')[2] for one in ids)}]"


def ids_in(slot: str, meme_id: str) -> list[str]:
    """Return the ids that a slot cites, of mentions and facts: `m1` of the meme `a` is `a:m1`."""
    return [f"{meme_id}:{one}" for some in _CITED.findall(slot) for one in some.split(", ")]
