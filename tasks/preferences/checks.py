"""Checks over whole tables of pairs, as METHODS names them: what each asks, what was found, whether it passed.

A check that fails here is a warning in the summary and the report: the published pairs fail two of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.core.fan_out import free
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output
from normloom.run.checks.own import LEAST_VARIATION, variation
from normloom.schemas import tables
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import HELD_OUT, OK, TRAIN
from normloom.steps.step import step
from normloom.tasks.tuning.lora import ADAPTER

STARTS_AT_ZERO = "lora_B"  # of an adapter, so that it changes nothing before it is trained


@step(makes=preference_tables.CHECKED, name="checks", fan_out=free("one row for each check"))
def check_pairs(rows: pl.DataFrame) -> Output:
    """Return the checks of pairs alone: splits apart (C2, C3), a weight that varies (C9)."""
    return checks_output(_of_pairs(rows))


@step(makes=preference_tables.CHECKED, name="reply_checks", fan_out=free("one row for each check"))
def check_replies(rows: pl.DataFrame, scored: pl.DataFrame, ranges: pl.DataFrame) -> Output:
    """Return the checks of replies and signals: replies as planned (C1), the bonus (C8), no constant signal (C12)."""
    return checks_output(_of_replies(rows, scored, ranges))


@step(makes=preference_tables.CHECKED, name="evaluation_checks", fan_out=free("one row for each check and policy"))
def check_evaluation(rows: pl.DataFrame) -> Output:
    """Return the checks of evaluated replies: the raw replies are those that the signals are of (C11)."""
    return checks_output(_of_policies(rows))


@step(
    makes=preference_tables.CHECKED,
    name="training_checks",
    libraries=("safetensors",),
    fan_out=free("one row for each check"),
)
def check_training(
    rows: pl.DataFrame, simple: pl.DataFrame | None = None, *, adapter: ProductFiles, other: ProductFiles | None = None
) -> Output:
    """Return the checks of training: weights that changed and a loss that fell (C4), adapters that differ (C5)."""
    return checks_output(_of_training(rows, simple, adapter, other))


def checked(check: str, of: str, asks: str, *, found: str, passed: bool) -> dict[str, object]:
    """Return one check as a row of a table under `preference_tables.CHECKED`."""
    return {
        "parents": [],
        "content": f"{check}\x1f{of}",
        "check": check,
        "of": of,
        "asks": asks,
        "found": found,
        "passed": passed,
    }


def checks_output(rows: Iterator[dict[str, object]]) -> Output:
    """Return what a stage of checks makes."""
    frame = pl.DataFrame(list(rows), schema=tables.named_by_content(preference_tables.CHECKED))
    return Output(rows=frame, attempts=frame.height)


def _of_replies(parsed: pl.DataFrame, scored: pl.DataFrame, ranges: pl.DataFrame) -> Iterator[dict[str, object]]:
    counts = parsed.group_by("model").agg(replies=pl.len(), prompts=pl.col("prompt_id").n_unique()).sort("model")
    prompts = parsed["prompt_id"].n_unique()
    lacking = counts.filter(pl.col("prompts") < prompts)["model"].to_list()
    yield checked(
        "C1",
        "replies",
        "each model answers each prompt",
        found=f"{parsed.height:,} replies of {counts.height} models to {prompts:,} prompts"
        + (f"; prompts without a reply of {', '.join(lacking)}" if lacking else ""),
        passed=not lacking,
    )
    fired = int(scored["bonus_fired"].sum())
    yield checked(
        "C8",
        "json_bonus",
        "the bonus is given to some replies and not to all",
        found=f"{fired:,} of {scored.height:,} replies",
        passed=0 < fired < scored.height,
    )
    constant = ranges.filter(pl.col("least") == pl.col("most"))["signal"].to_list()
    yield checked(
        "C12",
        "signals",
        "no signal is the same for all replies",
        found=f"constant: {', '.join(constant) or 'none'}",
        passed=not constant,
    )


def _of_training(
    curve: pl.DataFrame, simple: pl.DataFrame | None, adapter: ProductFiles, other: ProductFiles | None
) -> Iterator[dict[str, object]]:
    trained = [("quality", curve, adapter)]
    if simple is not None and other is not None:
        trained.append(("simple", simple, other))
    weights = {}
    for of, steps, files in trained:
        weights[of] = _learned(files)
        moved = any(tensor.any() for name, tensor in weights[of].items() if STARTS_AT_ZERO in name)
        losses, few = steps.sort("step")["unweighted_loss"], max(steps.height // 4, 1)
        first, last = losses.head(few).sum() / few, losses.tail(few).sum() / few
        yield checked(
            "C4",
            of,
            "the weights changed and the loss fell",
            found=f"{'changed' if moved else 'the same'}, {first:.4f} in the first steps, {last:.4f} in the last",
            passed=bool(moved and last < first),
        )
    if len(weights) > 1:
        one, two = weights.values()
        same = one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)
        yield checked(
            "C5",
            "adapters",
            "the trained policies differ",
            found="they are the same" if same else "they differ",
            passed=not same,
        )


def _learned(files: ProductFiles) -> dict[str, Any]:
    """Return the tensors of an adapter by name."""
    from safetensors.numpy import load_file

    return dict(load_file(files.path / ADAPTER))


def _of_policies(replies: pl.DataFrame) -> Iterator[dict[str, object]]:
    for (policy,), answered in replies.group_by("policy", maintain_order=True):
        parse, measured = (answered["raw_status"] == OK).sum(), answered["valid"].sum()
        yield checked(
            "C11",
            str(policy),
            "as many raw replies parse as have signals",
            found=f"{parse:,} of {answered.height:,} raw replies parse, {measured:,} replies have signals",
            passed=measured == parse,
        )


def _of_pairs(pairs: pl.DataFrame) -> Iterator[dict[str, object]]:
    for (method,), made in pairs.group_by("method", maintain_order=True):
        counts = {split: made.filter(split=split).height for split in (TRAIN, HELD_OUT)}
        yield checked(
            "C2",
            str(method),
            "each split has pairs",
            found=", ".join(f"{split} {count:,}" for split, count in counts.items()),
            passed=all(counts.values()),
        )
        splits = made.group_by("dialogue").agg(pl.col("split").n_unique())
        both = splits.filter(pl.col("split") > 1).height
        yield checked(
            "C3",
            str(method),
            "no prompt is in both splits",
            found=f"{both:,} of {splits.height:,} prompts are",
            passed=both == 0,
        )
        if made["margin"].null_count() < made.height:
            varies = variation(made["weight"])
            yield checked(
                "C9",
                str(method),
                f"the weights vary by at least {LEAST_VARIATION:g} of their mean",
                found=f"coefficient of variation {varies:.3f}",
                passed=varies >= LEAST_VARIATION,
            )
