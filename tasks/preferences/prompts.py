"""Read the prompts of persona dialogue: who is talking, what was said before, and what was said next."""

from __future__ import annotations

import hashlib

import polars as pl
from pydantic import Field

from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, dropped_rows, quarantined_frame
from normloom.readers import LIBRARIES, Located, Source, read_source
from normloom.readers.records import none_usable
from normloom.schemas import tables
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import TRAIN, VALID
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.records import fault

NEEDED = ("prompt_id", "persona", "context")
OPTIONAL = ("split", "reference")


class PersonaPrompts(Args):
    """Which prompts are taken."""

    limit: int | None = Field(None, ge=1, description="only the first N prompts of each split")
    max_chars: int = Field(20_000, ge=1, description="longer personas and contexts are quarantined")


@step(makes=preference_tables.PERSONA_PROMPTS, name="prompts", libraries=LIBRARIES)
def read_prompts(args: PersonaPrompts, *, source: Located) -> Output:
    """Return the prompts; without a column `split` all are for training.

    Quarantine rules: `repeated_id`, `unknown_split`, and those of `normloom.core.rows.text` for the three columns.
    A training prompt whose persona and context are those of a validation prompt is dropped as `leak`, and prompts
    beyond the limit as `limit`. Raises SourceError if no record can be used.
    """
    read = read_source(source, text_column=None, keep=NEEDED, optional=OPTIONAL)
    records = _complete(read)
    taken, faults, seen = [], [], set[str]()
    for record in records.iter_rows(named=True):
        if problem := _problem(record, seen, args.max_chars):
            faults.append(fault(record, *problem))
            continue
        seen.add(record["prompt_id"])
        taken.append({**record, "dialogue": dialogue_of(record["persona"], record["context"])})
    aside = [*faults, *read.entries]
    if not taken:
        raise none_usable(source.name, aside, expected=f"prompts in columns {', '.join(NEEDED)}")
    rows = pl.DataFrame(taken, schema=preference_tables.PERSONA_PROMPTS.columns)
    shared = rows.filter(split=VALID)["dialogue"].implode()
    position = pl.int_range(pl.len()).over("split")
    why = (
        pl.when((pl.col("split") == TRAIN) & pl.col("dialogue").is_in(shared))
        .then(pl.lit("leak"))
        .when(position >= (args.limit or rows.height))
        .then(pl.lit("limit"))
    )
    judged = rows.with_columns(why=why, row_id=pl.lit(None, dtype=pl.String))
    gone = judged.filter(pl.col("why").is_not_null())
    return Output(
        rows=judged.filter(pl.col("why").is_null())
        .drop("why", "row_id")
        .with_columns(parents=pl.lit([], dtype=tables.TEXTS), content="prompt_id"),
        dropped=dropped_rows(gone, reason=pl.col("why"), leaving_out=("why",)),
        quarantined=quarantined_frame(aside),
        attempts=read.records,
    )


def dialogue_of(persona: str, context: str) -> str:
    """Return what a persona and a context are known by: prompts with the same texts are one."""
    return hashlib.blake2b(f"{persona}\x1f{context}".encode(), digest_size=16).hexdigest()


def _complete(read: Source) -> pl.DataFrame:
    absent = [pl.lit(None, dtype=pl.String).alias(name) for name in OPTIONAL if name not in read.rows.columns]
    named = ("prompt_id", *(name for name in OPTIONAL if name in read.rows.columns))
    texts = [*(read.text(name) for name in NEEDED[1:]), *(read.names(name) for name in named)]
    return read.rows.with_columns(*texts, *absent).with_columns(pl.col("split").fill_null(TRAIN))


def _problem(record: dict[str, str], seen: set[str], max_chars: int) -> tuple[str, str] | None:
    for name in NEEDED:
        if found := text_problem(record[name], max_chars=max_chars):
            rule, reason = found
            return rule, f"column {name!r}: {reason}"
    if record["prompt_id"] in seen:
        return "repeated_id", f"prompt_id {record['prompt_id']!r} occurs in another record too"
    if record["split"] not in {TRAIN, VALID}:
        return "unknown_split", f"split is {record['split']!r}, expected {TRAIN} or {VALID}"
    return None
