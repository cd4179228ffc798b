"""A toy system for tests: two stages over words, with and without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.contract import Check, Contract
from normloom.core.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.core.progress import LogProgress
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, Stage, dropped, dropped_frame, quarantined, quarantined_frame
from normloom.run.runner import StageRunner
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

SCRIPTED = ModelSpec(engine="scripted", model="toy", options={"words": 4})

WORDS = Contract(
    columns={"word": pl.String()},
    checks=(Check(expectation="expect_column_values_to_not_be_null", arguments={"column": "word"}),),
)
ECHOES = Contract(columns={"word": pl.String(), "echo": pl.String()})


class Words(BaseModel):
    """The words to make rows of; `where` is a location, which is in no key."""

    model_config = ConfigDict(frozen=True)
    words: tuple[str, ...]
    where: Path = Field(Path(), exclude=True)


class Echo(BaseModel):
    """The word to drop, the one to put into quarantine, and how many echoes to draw of each other."""

    model_config = ConfigDict(frozen=True)
    drop: str | None = None
    aside: str | None = None
    copies: int = 1


def read_words(arguments: Words) -> Output:
    """Return a row for each word."""
    rows = pl.DataFrame({"word": arguments.words, "content": arguments.words, "parents": [[] for _ in arguments.words]})
    return Output(rows=rows, attempts=rows.height)


def echo(rows: pl.DataFrame, arguments: Echo, model: LanguageModel) -> Output:
    """Return the model's echoes of each word."""
    kept, out, aside = [], [], []
    for row in rows.iter_rows(named=True):
        if row["word"] == arguments.drop:
            out.append(dropped(row, "asked for"))
        elif row["word"] == arguments.aside:
            aside.append(quarantined(row, "asked", "because"))
        else:
            kept.append(row)
    requests = [
        GenerateRequest(
            instruction="echo",
            prompt=row["word"],
            seeds=tuple(seed(row["row_id"], copy) for copy in range(arguments.copies)),
            sampling=Sampling(max_tokens=8),
        )
        for row in kept
    ]
    made = [
        {"row_id": row["row_id"], "word": row["word"], "echo": candidate.text}
        for row, completion in zip(kept, model.generate(requests), strict=True)
        for candidate in completion.candidates
    ]
    return Output(
        rows=pl.DataFrame(made, schema={"row_id": pl.String, "word": pl.String, "echo": pl.String}),
        dropped=dropped_frame(out),
        quarantined=quarantined_frame(aside),
        attempts=len(made) + len(out) + len(aside),
    )


def words_stage(*words: str) -> Stage:
    """Return a source: the table `words`."""
    return Stage(name="words", function=read_words, arguments=Words(words=words), contract=WORDS)


def echo_stage(upstream: Stage, *, model: ModelSpec = SCRIPTED, part_rows: int | None = 2, **arguments: Any) -> Stage:
    """Return the stage `echo`, which reads `word`; arguments are those of `Echo`."""
    return Stage(
        name="echo",
        function=echo,
        arguments=Echo(**arguments),
        contract=ECHOES,
        inputs=(upstream,),
        model=model,
        part_rows=part_rows,
    )


def runner(store: Store, *, resources: Resources | None = None, budget: float = 0.5) -> StageRunner:
    """Return the runner of a build of the system `toy`."""
    pool = Pool(resources or Resources(actors=0))
    return StageRunner(
        system="toy", store=store, pool=pool, build="test", progress=LogProgress(), quarantine_budget=budget
    )
