"""A model answers the questions of the grid, or answers that were given elsewhere are read from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.content import Content, Image, shown, with_text
from normloom.core.errors import SourceError
from normloom.core.fan_out import each, free
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling, ScoreRequest
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, quarantined_frame
from normloom.readers import LIBRARIES, Located, read_source
from normloom.readers.media import MediaFolder
from normloom.schemas.media.cultural_tables import (
    ENGLISH,
    HARMLESS_FIRST,
    HATEFUL_FIRST,
    ORIGINAL,
    REPLIES,
    ZERO,
)
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.answers import answered
from normloom.tasks.cultural.memes import PIVOT
from normloom.tasks.records import fault

LETTERS = ("a", "b")
REPLY = ("meme_id", "prompt_no", "reply")
_SCHEMA = {"row_id": pl.String(), **REPLIES.columns}
_CELLS = [name for name in REPLIES.columns if name not in {"model", "raw_reply", "p_hateful"}]


class ScoredAnswers(Args):
    """How a model's letter is read from the probabilities of a and b: the likelier one, and no reply fails."""

    part_rows: int = Field(128, ge=1, exclude=True, description="questions in one part")


class WrittenAnswers(Args):
    """How a model writes its letter."""

    sampling: Sampling = Sampling(temperature=0, max_tokens=8)
    part_rows: int = Field(64, ge=1, exclude=True, description="questions in one part")


@step(makes=REPLIES, name="score_{entrant}", bound=bounds.cells_scored, fan_out=each(), images="media")
def answer_scored(
    rows: pl.DataFrame,
    args: ScoredAnswers,  # noqa: ARG001  # sizes of parts
    model: LanguageModel,
    *,
    entrant: str,
    media: ProductFiles | None = None,
) -> Output:
    """Return the likelier letter for each question; both orders of a zero-shot prompt are read in one request.

    The pictures of the questions are read from `media`; None if there are none.
    """
    looking = _Looking(media)
    alike = rows.with_columns(_images=pl.col("images").list.eval(pl.element().struct.field("media_id")).list.join(" "))
    asked = [group for _, group in alike.group_by("instruction", "context", "_images", maintain_order=True)]
    scored = model.score(
        [
            ScoreRequest(
                instruction=group["instruction"][0],
                context=looking.at(group.row(0, named=True)),
                questions=tuple(group["question"]),
                answers=LETTERS,
            )
            for group in asked
        ]
    )
    outcome, made = answered(asked, scored), []
    for group, scores in outcome.pairs:
        for row, (a, b) in zip(group.iter_rows(named=True), scores.logprobs, strict=True):
            p_a = 1 / (1 + math.exp(b - a))
            made.append(
                {
                    **{name: row[name] for name in ("row_id", *_CELLS)},
                    "model": entrant,
                    "raw_reply": LETTERS[b > a],
                    "p_hateful": p_a if row["option_order"] == HATEFUL_FIRST else 1 - p_a,
                }
            )
    return outcome.output(pl.DataFrame(made, schema=_SCHEMA))


@step(makes=REPLIES, name="answer_{entrant}", bound=bounds.cells_written, fan_out=each(), images="media")
def answer_written(
    rows: pl.DataFrame, args: WrittenAnswers, model: LanguageModel, *, entrant: str, media: ProductFiles | None = None
) -> Output:
    """Return what the model writes to each question; `media` is as in `answer_scored`."""
    looking = _Looking(media)
    asked = list(rows.iter_rows(named=True))
    completions = model.generate(
        [
            GenerateRequest(
                instruction=row["instruction"],
                prompt=with_text(looking.at(row), row["question"]),
                seeds=(seed(row["row_id"], entrant),),
                sampling=args.sampling,
            )
            for row in asked
        ]
    )
    outcome = answered(asked, completions)
    made = [
        {
            **{name: row[name] for name in ("row_id", *_CELLS)},
            "model": entrant,
            "raw_reply": draft.text,
            "p_hateful": None,
        }
        for row, completion in outcome.pairs
        for draft in completion.candidates
    ]
    return outcome.output(pl.DataFrame(made, schema=_SCHEMA))


class _Looking:
    """The contexts of questions with their pictures, each read once."""

    def __init__(self, media: ProductFiles | None) -> None:
        self._folder = MediaFolder(media.path) if media else None
        self._read: dict[str, Image] = {}

    def at(self, row: Mapping[str, Any]) -> Content:
        """Return what a question is about."""
        return shown(row["context"], [self._image(place) for place in row["images"]])

    def _image(self, place: Mapping[str, Any]) -> Image:
        if self._folder is None:
            raise ValueError(f"a question shows the picture {place['media_id']}, and no media are given")
        if place["media_id"] not in self._read:
            self._read[place["media_id"]] = Image(place["media_id"], self._folder.read(place))
        return self._read[place["media_id"]]


@step(
    makes=REPLIES,
    name="replies",
    libraries=LIBRARIES,
    fan_out=free("as many replies as the file has to a meme"),
)
def read_answers(rows: pl.DataFrame, *, source: Located, entrant: str) -> Output:
    """Return the replies of a model to English zero-shot prompts about memes, from a file.

    The file has meme_id, reply and prompt_no, which counts wordings in two orders of the options: an even number
    offers a for hateful, the odd one after it b for hateful. A reply to a meme that is not there, or without one of
    the three, is quarantined.
    """
    read = read_source(source, text_column=None, keep=REPLY)
    records = read.rows.with_columns(
        read.names("meme_id"),
        read.text("reply"),
        prompt_no=read.numbers("prompt_no").cast(pl.Int64, strict=False),
    )
    known = records.join(rows.select("meme_id", "row_id"), on="meme_id", how="left", maintain_order="left")
    rule = (
        pl.when(pl.any_horizontal(pl.col(name).is_null() for name in REPLY))
        .then(pl.lit("missing"))
        .when(pl.col("row_id").is_null())
        .then(pl.lit("unknown_meme"))
        .when(~pl.struct("meme_id", "prompt_no").is_first_distinct())
        .then(pl.lit("repeated"))
    )
    judged = known.with_columns(rule=rule)
    faults = [
        fault(row, row.pop("rule"), f"meme {row['meme_id']!r}")
        for row in judged.filter(pl.col("rule").is_not_null()).iter_rows(named=True)
    ]
    usable = judged.filter(pl.col("rule").is_null())
    if usable.is_empty():
        raise SourceError(f"{source.name}: none of {judged.height} replies is about one of {rows.height} memes")
    order = pl.when(pl.col("prompt_no") % 2 == 0).then(pl.lit(HATEFUL_FIRST)).otherwise(pl.lit(HARMLESS_FIRST))
    made = usable.select(
        parents=pl.concat_list("row_id"),
        content=pl.format("{}:{}", pl.lit(entrant), "prompt_no"),
        item_id=pl.format("{}:{}", "meme_id", pl.lit(PIVOT)),
        meme_id="meme_id",
        language=pl.lit(PIVOT),
        shot=pl.lit(ZERO),
        prompt_language=pl.lit(ENGLISH),
        text_version=pl.lit(ORIGINAL),
        option_order=order,
        wording=(pl.col("prompt_no") // 2).cast(pl.String),
        model=pl.lit(entrant),
        raw_reply="reply",
        p_hateful=pl.lit(None, dtype=pl.Float64),
    )
    return Output(
        rows=made,
        quarantined=quarantined_frame([*faults, *read.entries]),
        attempts=judged.height + len(read.rejected),
    )
