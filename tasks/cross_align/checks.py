"""Checks over whole tables, as METHODS names them: what each asks, what was found, whether it passed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.run.checks.own import worked
from normloom.schemas.media.meme_tables import ADAPTER, ENRICHED, NEAR_TEST, PLAIN, SHUFFLED, TEST, TRAIN
from normloom.schemas.training import preference_tables
from normloom.steps.step import step
from normloom.tasks.cross_align.explanations import SLOTS, ids_in
from normloom.tasks.preferences.checks import checked, checks_output

Row = dict[str, object]


@step(makes=preference_tables.CHECKED, name="checks", fan_out=free("one row for each check"))
def check_knowledge(
    rows: pl.DataFrame,
    mentions: pl.DataFrame,
    facts: pl.DataFrame,
    variants: pl.DataFrame,
    pairs: pl.DataFrame,
    curve: pl.DataFrame,
    *,
    most: int,
) -> Output:
    """Return the checks of splits, mentions, facts, variants, hard pairs and training."""
    return checks_output(
        chain(
            _splits(rows),
            _mentions(rows, mentions, facts, most),
            _variants(variants, facts),
            _pairs(rows, pairs),
            _training(curve),
        )
    )


@step(makes=preference_tables.CHECKED, name="explanation_checks", fan_out=free("one row for each check"))
def check_explanations(
    rows: pl.DataFrame, mentions: pl.DataFrame, facts: pl.DataFrame, verdicts: pl.DataFrame, faithful: pl.DataFrame
) -> Output:
    """Return the checks of explanations: ids are the meme's own, the verdict is the model's, citing beats chance."""
    return checks_output(_explanations(rows, mentions, facts, verdicts, faithful))


def _splits(items: pl.DataFrame) -> Iterator[Row]:
    for (task,), memes in items.group_by("task", maintain_order=True):
        learned = memes.filter(split=TRAIN)
        spread = learned["label"].n_unique(), memes.filter(split=TEST)["label"].n_unique()
        yield checked(
            "C2",
            str(task),
            "training and test memes have several classes",
            found=f"{spread[0]} and {spread[1]} classes",
            passed=min(spread) > 1,
        )
    near = items.filter(split=NEAR_TEST).height
    shared = items.filter(split=TRAIN).join(items.filter(pl.col("split") != TRAIN), on="text", how="semi").height
    yield checked(
        "C3",
        "items",
        "nothing is learned from a meme that nearly repeats one of another split",
        found=f"{near:,} are kept out of training; {shared} texts are shared",
        passed=not shared,
    )


def _mentions(items: pl.DataFrame, mentions: pl.DataFrame, facts: pl.DataFrame, most: int) -> Iterator[Row]:
    told = mentions.join(items.select("meme_id", "text"), on="meme_id", maintain_order="left")
    cut = pl.col("text").str.slice(pl.col("start"), pl.col("end") - pl.col("start"))
    wrong = told.filter(cut != pl.col("surface")).height
    yield checked(
        "offsets",
        "mentions",
        "text[start:end] is the surface",
        found=f"{mentions.height - wrong:,} of {mentions.height:,}",
        passed=not wrong,
    )
    largest = int(facts.group_by("meme_id").len()["len"].max() or 0)  # type: ignore[arg-type]  # a count
    linked = facts["meme_id"].n_unique()
    yield checked(
        "facts",
        "facts",
        f"a meme has at most {most} facts",
        found=f"{largest} at most; {linked:,} of {items.height:,} memes have some",
        passed=largest <= most,
    )


def _variants(variants: pl.DataFrame, facts: pl.DataFrame) -> Iterator[Row]:
    wide = variants.pivot(on="variant", on_columns=(PLAIN, ENRICHED, SHUFFLED), index="meme_id", values="text")
    having = pl.col("meme_id").is_in(facts["meme_id"].unique().implode())
    same = (pl.col(ENRICHED) == pl.col(PLAIN)) | pl.col(ENRICHED).is_null()
    wrong = wide.filter(having == same).height
    yield checked(
        "C5",
        ENRICHED,
        "texts differ from plain where there are facts, and only there",
        found=f"{wrong:,} of {wide.height:,} do not",
        passed=not wrong,
    )
    shuffled = variants.filter(variant=SHUFFLED)
    own = shuffled.filter(pl.col("donor") == pl.col("meme_id")).height
    yield checked(
        "control",
        SHUFFLED,
        "memes with facts are also judged with another meme's",
        found=f"{shuffled.height - own:,} of {shuffled.height:,} have other facts",
        passed=not shuffled.is_empty() and own < shuffled.height,
    )


def _pairs(items: pl.DataFrame, pairs: pl.DataFrame) -> Iterator[Row]:
    label = dict(items.select("meme_id", "label").iter_rows())
    split = dict(items.select("meme_id", "split").iter_rows())
    told = pairs.select(
        *(pl.col(one).replace_strict(label).alias(one) for one in ("anchor", "positive", "negative")),
        learned=pl.all_horizontal(
            pl.col(one).replace_strict(split) == TRAIN for one in ("anchor", "positive", "negative")
        ),
    )
    right = (pl.col("anchor") == pl.col("positive")) & (pl.col("anchor") != pl.col("negative")) & pl.col("learned")
    count = told.filter(right).height
    yield checked(
        "pairs",
        "hard_pairs",
        "positives share the class, negatives do not, all are training memes",
        found=f"{count:,} of {pairs.height:,}",
        passed=count == pairs.height,
    )


def _training(curve: pl.DataFrame) -> Iterator[Row]:
    for (variant,), runs in curve.group_by("variant", maintain_order=True):
        passed, found = worked(runs.lazy(), column="loss", step="epoch", weights="weights", by=("task",))
        yield checked("C4", str(variant), "the update changed and the loss fell", found=found, passed=passed)


def _explanations(
    rows: pl.DataFrame, mentions: pl.DataFrame, facts: pl.DataFrame, verdicts: pl.DataFrame, faithful: pl.DataFrame
) -> Iterator[Row]:
    known = {(meme, one) for meme, one in mentions.select("meme_id", "mention_id").iter_rows()}
    known |= {(meme, one) for meme, one in facts.select("meme_id", "fact_id").iter_rows()}
    cited = valid = bare = 0
    for row in rows.iter_rows(named=True):
        slots = [ids_in(row[slot], row["meme_id"]) for slot in SLOTS]
        bare += sum(not ids for ids in slots)
        named = [one for ids in (*slots, row["cited_ids"]) for one in ids]
        cited += len(named)
        valid += sum((row["meme_id"], one) in known and one in row["cited_ids"] for one in named)
    yield checked(
        "cited",
        "explanations",
        "every slot cites ids, and these are mentions and facts of the meme",
        found=f"{valid:,} of {cited:,} ids are; {bare} slots cite none",
        passed=valid == cited and not bare,
    )
    said = verdicts.filter(variant=ENRICHED, method=ADAPTER).select("meme_id", _said="label_hat")
    other = rows.join(said, on="meme_id", maintain_order="left").filter(pl.col("_said") != pl.col("label_hat")).height
    yield checked(
        "verdict",
        "explanations",
        "the verdict explained is the model's",
        found=f"{rows.height - other:,} of {rows.height:,}",
        passed=not other,
    )
    over = faithful.filter(metric="drop_over_random", slice_by="overall").row(0, named=True)
    told = over["undefined"] or f"{over['value']:+.4f} ({_bound(over['low'])} to {_bound(over['high'])})"
    yield checked(
        "C14",
        "faithfulness",
        "a verdict loses more without what is cited than without as much at random",
        found=told,
        passed=over["value"] is not None and (over["low"] or 0) > 0,
    )


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
