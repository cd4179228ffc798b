"""Explanations: the text with its mentions marked, facts, verdict, and what it is without its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from normloom.readers.media import MediaFolder
from normloom.report.blocks import Block, Marked, Note
from normloom.report.material import Material
from normloom.report.section import Data, Section
from normloom.report.sections.data.media import thumbnail
from normloom.schemas import tables
from normloom.schemas.media.media_tables import SPAN
from normloom.schemas.media.meme_tables import ENRICHED
from normloom.tasks.cross_align.claim import claims
from normloom.tasks.cross_align.figures import GAIN

EXPLAINED = ("meme_id", "visual", "textual", "cultural", "verdict", "cited_ids", "label", "label_hat", "probability")
SLOTS = EXPLAINED[1:5]
MENTIONS = ("mention_id", "meme_id", "start", "end")
FACTS = ("fact_id", "meme_id", "sentence", "source", "reference")
TEXTS = ("meme_id", "text", "read_by", *SPAN)
FAITHFUL = ("meme_id", "drop_cited", "drop_random")
BYTES = ("media_id", "kind", *SPAN)
EACH = 3  # of right and of wrong verdicts


def collect(material: Material) -> Data | None:
    """Return a few explanations, right and wrong ones, the first by their ids."""
    stages = [material.having(*columns) for columns in (EXPLAINED, MENTIONS, FACTS, TEXTS)]
    if not all(stages):
        return None
    explained, mentions, facts, texts = (material.rows(found[-1]) for found in stages)
    right = pl.col("label") == pl.col("label_hat")
    first = explained.with_columns(_right=right).sort("meme_id").group_by("_right", maintain_order=True).head(EACH)
    chosen = first.sort("_right", "meme_id", descending=[True, False]).collect()
    memes = pl.col("meme_id").is_in(chosen["meme_id"].implode())
    marks = mentions.filter(memes).sort("meme_id", "start").collect()
    told = facts.filter(memes).collect()
    where = {row["meme_id"]: row for row in texts.filter(memes).collect().iter_rows(named=True)}
    measured = material.having(*FAITHFUL)
    drops = material.rows(measured[-1]).filter(memes).collect().rows_by_key("meme_id", named=True) if measured else {}
    folder = _folder(material)
    shown = [
        _shown(row, marks, told, where[row["meme_id"]], drops.get(row["meme_id"], [{}])[0], folder)
        for row in chosen.iter_rows(named=True)
    ]
    return {"explanations": shown, "claims": _claims(material)} if shown else None


def _claims(material: Material) -> list[str]:
    """Return whether knowledge helped, for each task."""
    of_knowledge = (pl.col("metric") == GAIN) & (pl.col("of") == ENRICHED)
    for stage in material.having(*tables.FIGURES.columns):
        figures = material.rows(stage).collect()
        if not figures.filter(of_knowledge).is_empty():
            return list(claims(figures))
    return []


def _folder(material: Material) -> MediaFolder | None:
    """Return where the pictures are, None if the build has none."""
    stages = [
        stage for stage in material.having(*BYTES) if any(one.attached for one in material.manifests[stage].parts)
    ]
    return MediaFolder(material.store.folder(material.manifests[stages[0]].ref)) if stages else None


def _shown(
    row: dict[str, Any],
    marks: pl.DataFrame,
    facts: pl.DataFrame,
    meme: dict[str, Any],
    drops: Mapping[str, float],
    folder: MediaFolder | None,
) -> dict[str, Any]:
    own = marks.filter(meme_id=row["meme_id"]).iter_rows(named=True)
    brought = facts.filter(meme_id=row["meme_id"]).iter_rows(named=True)
    return {
        "meme": row["meme_id"],
        "picture": thumbnail(folder.read(meme)) if folder and meme["shard"] else None,
        "pieces": pieces(meme["text"], [(one["start"], one["end"], _short(one["mention_id"])) for one in own]),
        "cited": [_short(one) for one in row["cited_ids"]],
        "facts": [
            {"id": _short(one["fact_id"]), **{name: one[name] for name in ("sentence", "source", "reference")}}
            for one in brought
        ],
        "slots": {slot: row[slot] for slot in SLOTS},
        **{name: row[name] for name in ("label", "label_hat", "probability")},
        "drop_cited": drops.get("drop_cited"),
        "drop_random": drops.get("drop_random"),
    }


def pieces(text: str, spans: Sequence[tuple[int, int, str]]) -> list[tuple[str, str | None]]:
    """Return a text cut at its spans, which do not overlap; equal spans are one, under all their names."""
    names: dict[tuple[int, int], list[str]] = {}
    for start, end, name in spans:
        names.setdefault((start, end), []).append(name)
    cut: list[tuple[str, str | None]] = []
    place = 0
    for (start, end), own in sorted(names.items()):
        cut += [(text[place:start], None), (text[start:end], ", ".join(own))]
        place = end
    return [(piece, name) for piece, name in (*cut, (text[place:], None)) if piece]


def _short(name: str) -> str:
    return name.rpartition(":")[2]


def draw(data: Data) -> Iterator[Block]:
    """Show each explanation: picture, marked text, verdict, facts, and the verdict without its evidence."""
    yield Note(
        text="A few explanations, right and wrong verdicts, chosen by their ids. What the sources of knowledge know is "
        "marked, what is cited is bold. Memes may be abusive: pictures are blurred until they are clicked. An "
        "explanation says what the classifier relied on, not why a meme is harmful."
    )
    for claim in data["claims"]:
        yield Note(text=f"{claim}.")
    for one in data["explanations"]:
        cited = set(one["cited"])
        known = "\n".join(
            f"[{fact['id']}] {fact['sentence']} ({fact['source']}, {fact['reference']})"
            + ("" if fact["id"] in cited else ", not cited")
            for fact in one["facts"]
        )
        strong = [name for _, name in one["pieces"] if name and cited & set(name.split(", "))]
        yield Marked(
            title=f"Meme {one['meme']}",
            source=one["picture"],
            pieces=[(text, name) for text, name in one["pieces"]],
            strong=strong,
            facts=_facts(one),
            texts={**one["slots"], "facts": known},
        )


def _facts(one: Mapping[str, Any]) -> dict[str, str]:
    told = {"verdict": f"{one['label_hat']} ({one['probability']:.2f})", "label": str(one["label"])}
    if one["drop_cited"] is None:
        return told
    without = {name: one["probability"] - one[f"drop_{name}"] for name in ("cited", "random")}
    return {
        **told,
        "without what is cited": f"{without['cited']:.2f} ({-100 * one['drop_cited']:+.1f} points)",
        "without as much random evidence": f"{without['random']:.2f} ({-100 * one['drop_random']:+.1f} points)",
    }


SECTION = Section(name="evidence", title="Explanations and their evidence", collect=collect, draw=draw)
