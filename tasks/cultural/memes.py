"""Read parallel memes: one text for each language, one label for each country, and the ratings behind the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import each
from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, dropped_rows
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas.media import cultural_tables
from normloom.schemas.media.cultural_tables import TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.records import fault, source_rows

PIVOT = "en"  # the language that texts are translated into
_BREAK = "<sep>"  # between the upper and the lower text of a meme
RATING = ("rater_id", "group", "meme_id", "hateful")
_HATEFUL = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "no": 0, "yes": 1}


class Memes(Args):
    """Which memes are taken."""

    limit: int | None = Field(None, ge=1, description="only the first N memes")
    max_chars: int = Field(2_000, ge=1, description="longer texts are quarantined")


class MemeSplit(Args):
    """Which memes may be exemplars. Memes that share a picture are on one side."""

    train_share: float = Field(
        0.3, gt=0, lt=1, description="share of the pictures whose memes are exemplars and never asked"
    )
    asked: int | None = Field(None, ge=1, description="only the first N memes of the test split; null: all")


@step(makes=cultural_tables.MEMES, name="memes", libraries=LIBRARIES)
def read_memes(args: Memes, *, source: Located, countries: Mapping[str, str]) -> Output:
    """Return one row for each meme of a file with `meme_id`, `template`, `text_LANGUAGE` and `label_COUNTRY`.

    `countries` gives each country's language. Quarantine rules: `missing_id`, `repeated_id`, `unknown_label`, and
    those of `normloom.core.rows.text` for the texts. Texts that were left out are null, and then no row has them.
    Memes beyond the limit are dropped as `limit`. Raises SourceError if no record can be used.
    """
    texts = {language: f"text_{language}" for language in dict.fromkeys((PIVOT, *countries.values()))}
    labels = {country: f"label_{country}" for country in countries}
    read = read_source(
        source, text_column=None, keep=("meme_id", *texts.values(), *labels.values()), optional=("template",)
    )
    records = read.rows.with_columns(read.names(name) for name in read.rows.columns if name != "source_row")
    if "template" not in records.columns:
        records = records.with_columns(template="meme_id")
    taken, faults, seen = [], [], set[str]()
    for record in records.iter_rows(named=True):
        if problem := _problem(record, texts, labels, seen, args.max_chars):
            faults.append(fault(record, *problem))
            continue
        seen.add(record["meme_id"])
        taken.append(
            {
                "source_row": record["source_row"],
                "meme_id": record["meme_id"],
                "template": record["template"] or record["meme_id"],
                "texts": [
                    {"language": language, "text": _lines(record[column])}
                    for language, column in texts.items()
                    if record[column] is not None
                ],
                "labels": [
                    {"country": country, "label": _HATEFUL[record[column].lower()]}
                    for country, column in labels.items()
                ],
            }
        )
    rows = pl.DataFrame(taken, schema=cultural_tables.MEMES.columns)
    return source_rows(rows, [*faults, *read.entries], key="meme_id", limit=args.limit, source=source.name)


@step(makes=cultural_tables.JUDGEMENTS, libraries=LIBRARIES, fan_out=each(pl.col("labels").list.len()))
def judgements(rows: pl.DataFrame, *, ratings: Located | None) -> Output:
    """Return each meme's label by country, and whether it is what most raters of that country say.

    `ratings` is a file with rater_id, group (the country), meme_id and hateful; the metrics say how many of its
    ratings count. A tie makes no majority. Raises SourceError if no rating is by a country of the memes.
    """
    told = rows.select("row_id", "meme_id", "labels").explode("labels").unnest("labels")
    if ratings is None:
        none = [pl.lit(None, dtype=cultural_tables.JUDGEMENTS.columns[name]).alias(name) for name in _COUNTS]
        return Output(rows=told.with_columns(none))
    given, others = ratings_of(ratings, told["country"].unique(maintain_order=True).to_list())
    about = given.join(told, on=("meme_id", "country"), how="semi", maintain_order="left")
    counts = about.group_by("meme_id", "country", maintain_order=True).agg(
        raters=pl.len().cast(pl.Int64), hateful=pl.col("hateful").cast(pl.Int64).sum()
    )
    joined = told.join(counts, on=("meme_id", "country"), how="left", maintain_order="left")
    most = pl.when(2 * pl.col("hateful") != pl.col("raters")).then(
        (2 * pl.col("hateful") > pl.col("raters")).cast(pl.Int8)
    )
    return Output(
        rows=joined.with_columns(is_majority=most == pl.col("label")),
        metrics={"ratings": float(about.height), "ratings_left_out": float(others + given.height - about.height)},
    )


_COUNTS = ("raters", "hateful", "is_majority")


def ratings_of(ratings: Located, countries: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """Return the usable ratings of a file (rater_id, meme_id, country, hateful), and how many others it has.

    Groups are countries in any case, `hateful` is 0 or 1, and each rater's first rating of a meme counts. Raises
    SourceError if none can be used.
    """
    read = read_source(ratings, text_column=None, keep=RATING)
    texts = read.rows.select(read.names(name) for name in RATING)
    said = pl.col("hateful").str.to_lowercase().replace_strict(_HATEFUL, default=None, return_dtype=pl.Int8)
    known = {name.lower(): name for name in countries}
    country = pl.col("group").str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.String)
    rated = texts.select("rater_id", "meme_id", country=country, hateful=said).drop_nulls()
    if rated.is_empty():
        found = ", ".join(map(repr, texts["group"].drop_nulls().unique(maintain_order=True).head(5)))
        raise SourceError(
            f"{ratings.name}: none of {read.records} ratings can be used: expected 0 or 1 in column 'hateful', and in "
            f"column 'group' one of {', '.join(countries)}, found {found or 'none'}"
        )
    first = rated.unique(["rater_id", "meme_id", "country"], keep="first", maintain_order=True)
    return first, read.records - first.height


@step(
    makes=cultural_tables.ITEMS,
    name="items",
    bound=bounds.texts_of_memes,
    fan_out=each(pl.col("texts").list.len(), by_part=True),
)
def meme_items(rows: pl.DataFrame, args: MemeSplit, *, countries: Mapping[str, str]) -> Output:
    """Return one row for each meme and language, with the label of the language's first country, and its split.

    A picture is in the training split if its hash is among the lowest `train_share`. Items of the test split beyond
    the memes that are asked are dropped as `not_asked`.
    """
    first = {language: country for country, language in reversed(list(countries.items()))}
    native = pl.DataFrame({"language": list(first), "country": list(first.values())})
    labels = rows.select("meme_id", "labels").explode("labels").unnest("labels")
    texts = rows.select("row_id", "meme_id", "template", "texts").explode("texts").drop_nulls("texts").unnest("texts")
    pivot = texts.filter(language=PIVOT).select("meme_id", translation="text")
    split = pl.col("template").map_elements(lambda name: _position(name) < args.train_share, return_dtype=pl.Boolean)
    made = (
        texts.join(native, on="language", how="left", maintain_order="left")
        .with_columns(pl.col("country").fill_null(next(iter(countries))))
        .join(labels, on=("meme_id", "country"), how="left", maintain_order="left")
        .join(pivot, on="meme_id", how="left", maintain_order="left")
        .with_columns(
            item_id=pl.concat_str("meme_id", "language", separator=":"),
            translation=pl.when(pl.col("language") != PIVOT).then("translation"),
            split=pl.when(split).then(pl.lit(TRAIN)).otherwise(pl.lit(TEST)),
        )
    )
    made = made.select("row_id", *cultural_tables.ITEMS.columns)
    tested = made.filter(split=TEST)["meme_id"].unique(maintain_order=True).head(args.asked or made.height)
    asked = (pl.col("split") == TRAIN) | pl.col("meme_id").is_in(tested.implode())
    return Output(
        rows=made.filter(asked),
        dropped=dropped_rows(made.filter(~asked), reason="not_asked"),
    )


def _position(name: str) -> float:
    """Return a number in [0, 1) drawn from a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest()) / 2**56


def _lines(text: str) -> str:
    return "\n".join(part.strip() for part in text.split(_BREAK) if part.strip())


def _problem(
    record: Mapping[str, str | None],
    texts: Mapping[str, str],
    labels: Mapping[str, str],
    seen: set[str],
    max_chars: int,
) -> tuple[str, str] | None:
    meme = record["meme_id"]
    if not meme:
        return "missing_id", "no meme_id"
    if meme in seen:
        return "repeated_id", f"meme_id {meme!r} occurs in another record too"
    for column in labels.values():
        if (record[column] or "").lower() not in _HATEFUL:
            return "unknown_label", f"{column} is {record[column]!r}, expected 0 or 1"
    for column in texts.values():
        if (text := record[column]) is not None and (found := text_problem(text, max_chars=max_chars)):
            rule, reason = found
            return rule, f"column {column!r}: {reason}"
    return None
