"""Read memes with a label: their text, or a picture that is read, their task and their split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import each
from normloom.core.rows.text import text_problem
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.readers import LIBRARIES, Located, read_source
from normloom.readers.media import MediaLimits, Pack, decode
from normloom.schemas.media import meme_tables
from normloom.schemas.media.media_tables import media_contract
from normloom.schemas.media.meme_tables import TEST, TRAIN, VALIDATION
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.media.read_media import media_output, media_row
from normloom.tasks.missing_modality.drawn import drawn
from normloom.tasks.records import fault, source_rows

KEPT = ("meme_id",)
_KNOWN = {
    "meme_id": ("meme_id", "id"),
    "text": ("text", "ocr_text", "caption"),
    "label": ("label",),
    "task": ("task", "domain"),
    "template": ("template",),
    "split": ("split",),
}
_SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
_SHARES = ((0.6, TRAIN), (0.8, VALIDATION), (1.0, TEST))  # of the templates, if the source has no splits
_ONE = "memes"  # the task of a source that names none


class Columns(BaseModel):
    """The columns of the source; null: found by their usual names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meme_id: str | None = Field(None, description="id of the meme; null: meme_id or id")
    text: str | None = Field(None, description="column of the text; null: text, ocr_text or caption")
    label: str | None = Field(None, description="column of the label; null: label")
    task: str | None = Field(None, description="column of the task; null: task or domain")
    template: str | None = Field(None, description="the picture that memes share; null: template")
    split: str | None = Field(None, description="train, val or test; null: split, or else drawn by template")


class MemeReading(Args):
    """Which memes are taken, and what their labels are called."""

    limit: int | None = Field(None, ge=1, description="only the first N memes")
    max_chars: int = Field(2_000, ge=1, description="longer texts are quarantined")
    columns: Columns = Columns()
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="labels that are renamed, so that several become one: {very harmful: harmful}"
    )


@step(makes=meme_tables.LABELLED_MEMES, name="memes", libraries=LIBRARIES)
def read_labelled_memes(args: MemeReading, *, source: Located, pictures: bool) -> Output:
    """Return one row for each meme of a file; the text may be missing if there are `pictures` to read it in.

    Quarantine rules: `missing_id`, `repeated_id`, `no_label`, `unknown_split`, `no_text`, and those of
    `normloom.core.rows.text`. Memes beyond the limit are dropped as `limit`. Raises SourceError for a file without ids,
    texts (nor pictures) or labels, and if no record can be used.
    """
    found = _columns(source, args.columns, needed=("meme_id", "label") if pictures else ("meme_id", "label", "text"))
    read = read_source(source, text_column=None, keep=tuple(found.values()))
    texts = [read.names(column).alias(name) for name, column in found.items()]
    records = read.rows.select("source_row", *texts)
    absent = [pl.lit(None, dtype=pl.String).alias(name) for name in _KNOWN if name not in found]
    taken, faults, seen = [], [], set[str]()
    for record in records.with_columns(absent).iter_rows(named=True):
        if problem := _problem(record, seen, args.max_chars, pictures=pictures):
            faults.append(fault(record, *problem))
            continue
        seen.add(record["meme_id"])
        template = record["template"] or record["meme_id"]
        label = args.labels.get(record["label"], record["label"])
        split = _SPLITS[record["split"].lower()] if record["split"] else _drawn_split(template)
        taken.append({**record, "task": record["task"] or _ONE, "template": template, "label": label, "split": split})
    columns = meme_tables.LABELLED_MEMES.columns
    rows = pl.DataFrame([{name: row[name] for name in columns} for row in taken], schema=columns)
    return source_rows(rows, [*faults, *read.entries], key="meme_id", limit=args.limit, source=source.name)


@step(
    makes=media_contract(KEPT),
    name="media",
    files="media",
    libraries=("pillow", "numpy", "scipy", "soundfile", "av"),
    fan_out=each(),
)
def draw_pictures(rows: pl.DataFrame, *, run: Run) -> Output:
    """Return a picture of ours for each meme: the shapes of its template, with its text."""
    kept = []
    with Pack(run.files) as pack:
        for meme in rows.iter_rows(named=True):
            origin = f"{meme['meme_id']}.png"
            row = media_row(decode(drawn(meme["template"], meme["text"]), origin, MediaLimits()), pack, origin=origin)
            kept.append({**row, "meme_id": meme["meme_id"]})
    made = media_output(kept, keep=KEPT).rows.drop("parents", "content")
    return Output(rows=made.with_columns(rows["row_id"]))


def _columns(source: Located, named: Columns, *, needed: Sequence[str]) -> dict[str, str]:
    """Return the column of each field that the source has."""
    from normloom.readers import column_names

    there = column_names(source)
    found = {}
    for field, usual in _KNOWN.items():
        own = getattr(named, field)
        if own and own not in there:
            raise SourceError(
                f"{source.name} has no column {own!r} (source.columns.{field}); it has {', '.join(there)}"
            )
        column = own or next((one for one in usual if one in there), None)
        if column:
            found[field] = column
        elif field in needed:
            raise SourceError(
                f"{source.name} has no column of the {field.replace('_', ' ')} ({', '.join(usual)}): name it with "
                f"source.columns.{field}; it has {', '.join(there)}"
            )
    return found


def _problem(
    record: Mapping[str, str | None], seen: set[str], max_chars: int, *, pictures: bool
) -> tuple[str, str] | None:
    meme, text, split = record["meme_id"], record["text"], record["split"]
    if not meme:
        return "missing_id", "no id"
    if meme in seen:
        return "repeated_id", f"the id {meme!r} occurs in another record too"
    if not record["label"]:
        return "no_label", "the label is empty"
    if split and split.lower() not in _SPLITS:
        return "unknown_split", f"split is {split!r}, expected one of {', '.join(_SPLITS)}"
    if text is None:
        return None if pictures else ("no_text", "the text is empty, and there is no picture to read it in")
    return text_problem(text, max_chars=max_chars)


def _drawn_split(template: str) -> str:
    place = int.from_bytes(hashlib.blake2b(f"split:{template}".encode(), digest_size=7).digest()) / 2**56
    return next(split for share, split in _SHARES if place < share)
