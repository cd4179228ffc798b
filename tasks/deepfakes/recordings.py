"""Recordings with what is known of them: real or fake, whose voice, which generator, made from what."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.stage import Output
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas.media import deepfake_tables
from normloom.schemas.media.deepfake_tables import FAKE, NO_GENERATOR, REAL
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.records import fault, source_rows

SPEAKERS, WORDS = ("ada", "ben", "cleo", "dan"), 8  # of the built-in recordings
GENERATORS = ("steady", "coarse", "scrambled")


class Recordings(Args):
    """The columns of the source, and how many of its records are taken."""

    limit: int | None = Field(None, ge=1, description="only the first N recordings")
    item: str = Field("item_id", description="column with the name of each recording")
    label: str = Field("label", description="column that says real or fake")
    real: str = Field(REAL, description="the label of real recordings; every other label is a fake")
    speaker: str = Field(
        "speaker", description="column with the speaker or face; an empty one counts as one of its own"
    )
    generator: str = Field("generator", description="column with the generator of fakes")
    source_item: str = Field("source_item", description="column with the recording that pieces and fakes come from")


@step(makes=deepfake_tables.RECORDINGS, name="recordings", libraries=LIBRARIES)
def read_recordings(args: Recordings, *, source: Located) -> Output:
    """Return one row for each recording of a table.

    A recording without a speaker or source stands for itself. Quarantine rules: `missing_id`, `repeated_id`,
    `missing_label`, `missing_generator` (a fake whose generator is unknown cannot be held out). Recordings beyond the
    limit are dropped as `limit`. Raises SourceError if no record can be used.
    """
    names = {
        "item_id": args.item,
        "label": args.label,
        "speaker": args.speaker,
        "generator": args.generator,
        "source_item": args.source_item,
    }
    read = read_source(source, text_column=None, keep=tuple(dict.fromkeys(names.values())))
    records = read.rows.select("source_row", *(read.names(column).alias(name) for name, column in names.items()))
    taken, faults, seen = [], [], set[str]()
    for record in records.iter_rows(named=True):
        if problem := _problem(record, args, seen):
            faults.append(fault(record, *problem))
            continue
        name, is_real = record["item_id"], record["label"] == args.real
        seen.add(name)
        taken.append(
            {
                "item_id": name,
                "label": REAL if is_real else FAKE,
                "speaker": record["speaker"] or name,
                "generator": NO_GENERATOR if is_real else record["generator"],
                "source_item": record["source_item"] or name,
            }
        )
    rows = pl.DataFrame(taken, schema=deepfake_tables.RECORDINGS.columns)
    return source_rows(rows, [*faults, *read.entries], key="item_id", limit=args.limit, source=source.name)


@step(makes=deepfake_tables.RECORDINGS, name="recordings", libraries=())
def builtin_recordings(args: Recordings) -> Output:
    """Return what the built-in sounds are: four voices, eight words, and each word faked by three generators."""
    made = [
        {
            "item_id": f"{speaker}-{word}-{generator}",
            "label": REAL if generator == NO_GENERATOR else FAKE,
            "speaker": speaker,
            "generator": generator,
            "source_item": f"{speaker}-{word}",
        }
        for word in range(WORDS)
        for speaker in SPEAKERS
        for generator in (NO_GENERATOR, *GENERATORS)
    ]
    rows = pl.DataFrame(made, schema=deepfake_tables.RECORDINGS.columns)
    return source_rows(rows, [], key="item_id", limit=args.limit, source="the built-in recordings")


def _problem(record: dict[str, str | None], args: Recordings, seen: set[str]) -> tuple[str, str] | None:
    if record["item_id"] is None:
        return "missing_id", f"no {args.item}"
    if record["item_id"] in seen:
        return "repeated_id", f"{args.item} {record['item_id']!r} is there already"
    if record["label"] is None:
        return "missing_label", f"no {args.label}: expected {args.real!r} or another word for fakes"
    if record["label"] != args.real and record["generator"] is None:
        return "missing_generator", f"a fake without a {args.generator}: name what made it"
    return None
