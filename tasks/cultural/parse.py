"""Which option a reply chooses. A reply that names none or both has no answer, and is counted."""

from __future__ import annotations

import re

import polars as pl

from normloom.core.fan_out import each
from normloom.schemas.media.cultural_tables import BOTH, HATEFUL_FIRST, NONE, OK, PARSED
from normloom.steps.step import step

_LEADING = re.compile(r"\s*[\"'(\[*]*([ab])\b(?![^\W\d_])", re.IGNORECASE)  # "a", "(b)", "b: Not hate speech"
_ALONE = re.compile(r"(?<![\w'])([ab])(?=[):.\]*\"'\s]*$|[):])", re.IGNORECASE)  # "The answer is b."


@step(makes=PARSED, name="parsed", fan_out=each())
def parse_letters(rows: pl.DataFrame) -> pl.DataFrame:
    """Return each reply with its answer, 1 for hateful, null if it names no option or both."""
    letters = [letter_of(reply) for reply in rows["raw_reply"]]
    status = [OK if len(found) == 1 else BOTH if found else NONE for found in letters]
    letter = pl.Series("letter", [found if len(found) == 1 else None for found in letters], dtype=pl.String)
    hateful = pl.when(pl.col("option_order") == HATEFUL_FIRST).then(pl.lit("a")).otherwise(pl.lit("b"))
    return (
        rows.with_columns(letter, parse_status=pl.Series(status, dtype=pl.String))
        .with_columns(answer=(pl.col("letter") == hateful).cast(pl.Int8))
        .select("row_id", *PARSED.columns)
    )


def letter_of(reply: str) -> str:
    """Return the letter that a reply chooses, `ab` if both, or nothing.

    A letter at the start counts first ("b: Not hate speech"); else letters that end the reply or are marked as an
    option. An English "a" within a sentence is no answer.
    """
    if leading := _LEADING.match(reply):
        rest = reply[leading.end() :]
        if not rest.strip() or not rest[:1].isspace() or rest[:1] == "\n":
            return leading[1].lower()
    return "".join(sorted({found.lower() for found in _ALONE.findall(reply)}))
