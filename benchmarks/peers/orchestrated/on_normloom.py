"""Normloom: a step for each function, built from Python."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

import normloom as nl
from normloom.core.table import Manifest
from normloom.store.store import Store
from orchestrated import steps
from orchestrated.settings import PROMPTS, Built, Settings

SYSTEM, STORE = "orchestrated", "store"
LABELLED = {"prompt": pl.String, "label": pl.String}
DRAWN = {**LABELLED, "response": pl.String}
JUDGED = {**DRAWN, "score": pl.Float64, "accepted": pl.Boolean}


@nl.step(makes=LABELLED)
def classify(rows: pl.DataFrame) -> pl.DataFrame:
    return steps.classify(rows.drop("source_row"))


@nl.step(makes=DRAWN, fan_out=nl.each(steps.CANDIDATES))
def generate(rows: pl.DataFrame) -> nl.Output:
    made = steps.generate(rows)
    return nl.Output(rows=made, attempts=made.height)


@nl.step(makes=JUDGED)
def judge(rows: pl.DataFrame, *, threshold: float) -> pl.DataFrame:
    return steps.judge(rows, threshold)


@nl.step(makes=JUDGED)
def select(rows: pl.DataFrame) -> nl.Output:
    kept = steps.select(rows)
    reason = pl.when("accepted").then(pl.lit("another is better")).otherwise(pl.lit("not accepted"))
    others = rows.join(kept.select("row_id"), on="row_id", how="anti")
    return nl.Output(rows=kept, dropped=nl.dropped_rows(others, reason=reason))


def last_stage(settings: Settings) -> nl.Stage:
    labelled = classify(nl.table(PROMPTS, name="read"), part_rows=settings.chunk)
    drawn = generate(labelled, part_rows=settings.chunk)
    return select(judge(drawn, threshold=settings.threshold, part_rows=settings.chunk * steps.CANDIDATES))


def build(settings: Settings) -> Built:
    result = nl.build(last_stage(settings), store=STORE, name=SYSTEM)
    return built(result.built.manifests, result.store)


def built(manifests: Iterable[Manifest], store: Store) -> Built:
    *_, last = manifests = list(manifests)
    aside = sum(manifest.count("quarantined") for manifest in manifests)
    return Built([path for path, _ in last.files(store.table_directory(last.ref))], aside)
