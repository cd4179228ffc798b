"""Every way to ask about a meme: with or without an example, in two languages, about two texts, with the options in
both orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from normloom.core.content import MARK, without_marks
from normloom.core.errors import ConfigError
from normloom.core.fan_out import free
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import cultural_tables
from normloom.schemas.media.cultural_tables import (
    ENGLISH,
    HARMLESS_FIRST,
    HATEFUL_FIRST,
    ONE,
    ORIGINAL,
    TEST,
    TRANSLATED,
)
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.cultural.memes import PIVOT

OWN = "own"  # the wording of the template
_PARTS = ("instruction", "meme", "example", "question", "hateful", "harmless")


class Cells(Args):
    """The cells of the grid, and the prompt: a section of each kind for each language."""

    template: Annotated[Template, sections(tuple(f"{part} {PIVOT}" for part in _PARTS))] = template_named("cultural")
    shots: tuple[Literal["zero", "one"], ...] = Field(
        ("zero", "one"), min_length=1, description="examples in the prompt"
    )
    prompt_languages: tuple[Literal["native", "english"], ...] = Field(
        ("native", "english"), min_length=1, description="languages of the question"
    )
    text_versions: tuple[Literal["original", "translated"], ...] = Field(
        ("original", "translated"), min_length=1, description="text of the meme: its own, or the English one"
    )


@step(
    makes=cultural_tables.GRID,
    bound=bounds.cells_of_grid,
    fan_out=free("one row for each cell and order of the options"),
)
def grid(rows: pl.DataFrame, args: Cells, exemplars: pl.DataFrame, media: pl.DataFrame | None = None) -> Output:
    """Return the questions about the items of the test split, cell by cell; those about one item in one cell in a row.

    English items are their own translation, so they are asked in English about the original only. An item without an
    exemplar has no one-shot cells. With `media` (`meme_id`, `language` and where the bytes are) the picture of each
    meme, and that of an example, is shown before its text; an item without one is dropped as `no_image`. Raises
    ConfigError if the template lacks a section for a language, or a place for the picture.
    """
    tested = rows.filter(split=TEST)
    shots = {shot["item_id"]: shot for shot in exemplars.iter_rows(named=True)}
    pictures = None if media is None else _pictures(media)
    seen = pl.col("item_id").is_in(list(pictures)) if pictures is not None else pl.lit(value=True)
    asked = [
        question
        for item in tested.filter(seen).iter_rows(named=True)
        for question in _questions(item, shots.get(item["item_id"]), args, pictures)
    ]
    schema: dict[str, Any] = {
        "parents": pl.List(pl.String),
        "content": pl.String,
        **cultural_tables.GRID.columns,
    }
    gone = tested.filter(~seen)
    return Output(
        rows=pl.DataFrame(asked, schema=schema).sort(_CELL_ORDER, maintain_order=True),
        dropped=dropped_rows(gone, reason="no_image"),
        attempts=len(asked) + gone.height,
    )


_CELL_ORDER = ("language", "shot", "prompt_language", "text_version")
_PLACE = ("media_id", "shard", "offset", "size")


def _pictures(media: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return where the picture of each item is, the first if it has several."""
    named = media.with_columns(item_id=pl.concat_str("meme_id", "language", separator=":"))
    first = named.unique("item_id", keep="first", maintain_order=True)
    return {row.pop("item_id"): row for row in first.select("item_id", *_PLACE).iter_rows(named=True)}


def _questions(
    item: Mapping[str, Any],
    shot: Mapping[str, Any] | None,
    args: Cells,
    pictures: Mapping[str, Mapping[str, Any]] | None,
) -> Iterator[dict[str, Any]]:
    english = item["language"] == PIVOT
    prompt_languages = (ENGLISH,) if english else args.prompt_languages
    versions = (ORIGINAL,) if english or item["translation"] is None else args.text_versions
    for shots, prompt_language, version in product(args.shots, prompt_languages, versions):
        if shots == ONE and shot is None:
            continue
        language = PIVOT if prompt_language == ENGLISH else item["language"]
        example = shot if shots == ONE else None
        told = [example["shot_id"]] if example else []
        images = [pictures.get(one) for one in (*told, item["item_id"])] if pictures is not None else [None, None]
        for order in (HATEFUL_FIRST, HARMLESS_FIRST):
            cell = (shots, prompt_language, version, order)
            yield {
                "parents": [item["row_id"]],
                "content": "\x1f".join(cell),
                "item_id": item["item_id"],
                "meme_id": item["meme_id"],
                "language": item["language"],
                "shot": shots,
                "prompt_language": prompt_language,
                "text_version": version,
                "option_order": order,
                "wording": OWN,
                "shot_id": example and example["shot_id"],
                "instruction": args.template.render(f"instruction {language}"),
                "context": _context(item, example, version, order, language, args.template, images),
                "question": _options(order, language, args.template),
                "images": [image for image in images if image],
            }


def _context(
    item: Mapping[str, Any],
    example: Mapping[str, Any] | None,
    version: str,
    order: str,
    language: str,
    template: Template,
    images: Sequence[Mapping[str, Any] | None],
) -> str:
    translated = version == TRANSLATED
    text = item["translation"] if translated else item["text"]
    meme = _shown(template, f"meme {language}", image=images[-1], text=text)
    if example is None:
        return meme
    hateful_letter = "a" if order == HATEFUL_FIRST else "b"
    letter = hateful_letter if example["shot_label"] else ({"a", "b"} - {hateful_letter}).pop()
    example_shown = _shown(
        template,
        f"example {language}",
        image=images[0],
        text=example["shot_translation"] if translated else example["shot_text"],
        question=_options(order, language, template),
        answer=letter,
    )
    return f"{example_shown}\n\n{meme}"


def _shown(template: Template, section: str, *, image: Mapping[str, Any] | None, text: str, **values: str) -> str:
    """Return a section with the mark of a picture, if there is one."""
    made = template.render(section, image=MARK if image else "", text=without_marks(text), **values).strip()
    if image and MARK not in made:
        raise ConfigError(f"template {template.name!r}, section [{section}]: no $image, so no picture would be shown")
    return made


def _options(order: str, language: str, template: Template) -> str:
    words = [template.render(f"{kind} {language}") for kind in ("hateful", "harmless")]
    first, second = words if order == HATEFUL_FIRST else reversed(words)
    return template.render(f"question {language}", first=first, second=second)
