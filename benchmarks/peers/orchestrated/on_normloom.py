"""Normloom: a stage for each step, built as the command line builds a system."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.build import BuildRequest, quiet_libraries, reuse
from normloom.build import build as build_tables
from normloom.contract import Contract
from normloom.pool import Pool
from normloom.resources import Resources
from normloom.server import prefect_server, using_server
from normloom.stage import NoArguments, Output, Stage
from normloom.store import Store
from normloom.table import Manifest
from orchestrated import steps
from orchestrated.settings import PROMPTS, Built, Settings

PROMPT = {"prompt": pl.String()}
LABELLED = {**PROMPT, "label": pl.String()}
DRAWN = {**LABELLED, "response": pl.String()}
JUDGED = {**DRAWN, "score": pl.Float64(), "accepted": pl.Boolean()}
SYSTEM = "orchestrated"


class Source(BaseModel):
    """The file of prompts; its content is in the key, its path is not."""

    model_config = ConfigDict(frozen=True)
    digest: str
    path: Path = Field(exclude=True)


class Judging(BaseModel):
    """How candidates are judged."""

    model_config = ConfigDict(frozen=True)
    threshold: float


def read(arguments: Source) -> Output:
    """Return the prompts, known by their text."""
    rows = steps.read(arguments.path)
    rows = rows.with_columns(content="prompt", parents=pl.lit([], dtype=pl.List(pl.String)))
    return Output(rows=rows, attempts=rows.height)


def classify(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # as stages are called
    """Label the prompts."""
    return Output(rows=steps.classify(rows))


def generate(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # as stages are called
    """Draw the candidates."""
    made = steps.generate(rows)
    return Output(rows=made, attempts=made.height)


def judge(rows: pl.DataFrame, arguments: Judging) -> Output:
    """Judge the candidates."""
    return Output(rows=steps.judge(rows, arguments.threshold))


def select(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # as stages are called
    """Keep the best candidates; the others are in the ledger."""
    kept = steps.select(rows)
    reason = pl.when("accepted").then(pl.lit("another is better")).otherwise(pl.lit("not accepted"))
    payload = pl.struct("response", "score").struct.json_encode()
    others = rows.join(kept.select("row_id"), on="row_id", how="anti")
    dropped = others.select("row_id", reason=reason, winner=pl.lit(None, dtype=pl.String), payload=payload)
    return Output(rows=kept, dropped=dropped)


def last_stage(settings: Settings) -> Stage:
    """Return the stage that selects, which stands on the four others."""
    digest = hashlib.sha256(PROMPTS.read_bytes()).hexdigest()
    prompts = Stage(
        name="read",
        function=read,
        arguments=Source(digest=digest, path=PROMPTS),
        contract=Contract(columns=PROMPT),
    )
    labelled = Stage(
        name="classify",
        function=classify,
        arguments=NoArguments(),
        contract=Contract(columns=LABELLED),
        inputs=(prompts,),
        part_rows=settings.chunk,
    )
    drawn = Stage(
        name="generate",
        function=generate,
        arguments=NoArguments(),
        contract=Contract(columns=DRAWN),
        inputs=(labelled,),
        part_rows=settings.chunk,
    )
    judged = Stage(
        name="judge",
        function=judge,
        arguments=Judging(threshold=settings.threshold),
        contract=Contract(columns=JUDGED),
        inputs=(drawn,),
        part_rows=settings.chunk * steps.CANDIDATES,
    )
    return Stage(
        name="select",
        function=select,
        arguments=NoArguments(),
        contract=Contract(columns=JUDGED),
        inputs=(judged,),
    )


def build(settings: Settings) -> Built:
    """Build with a Prefect server beside, or find that there is nothing to do."""
    quiet_libraries()
    store, request, last = Store(Path("store")), BuildRequest(system=SYSTEM), last_stage(settings)
    result = reuse(last, request=request, store=store)
    if result is None:
        with prefect_server() as url, using_server(url):
            result = build_tables(last, request=request, store=store, pool=Pool(Resources(actors=0)))
    return built(result.manifests, store)


def built(manifests: Sequence[Manifest], store: Store) -> Built:
    """Return what is told of a build; the last manifest is that of the table released."""
    directory = store.table_directory(manifests[-1].ref)
    aside = sum(manifest.count("quarantined") for manifest in manifests)
    return Built([path for path, _ in manifests[-1].files(directory)], aside)
