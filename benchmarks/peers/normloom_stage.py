"""The prompts as a Normloom stage: the vllm engine in a Ray actor, parts, commits and checks included."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from prompts import marginal, read
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Contract
from normloom.core.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.core.progress import LogProgress
from normloom.core.stage import Output, Stage
from normloom.prefect.quiet import quiet_libraries
from normloom.run.runner import StageRunner
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

ASKED = Contract(columns={"system": pl.String(), "user": pl.String()})
ANSWERED = Contract(columns={"text": pl.String()})
PART_ROWS = 32


class Asked(BaseModel):
    """The prompts."""

    model_config = ConfigDict(frozen=True)
    rows: tuple[dict[str, str], ...]


class Answering(BaseModel):
    """How texts are drawn."""

    model_config = ConfigDict(frozen=True)
    max_tokens: int


def ask(arguments: Asked) -> Output:
    """Return the prompts as rows."""
    rows = pl.DataFrame(list(arguments.rows)).with_columns(
        content="user", parents=pl.Series([[]] * len(arguments.rows), dtype=pl.List(pl.String))
    )
    return Output(rows=rows, attempts=rows.height)


def answer(rows: pl.DataFrame, arguments: Answering, model: LanguageModel) -> Output:
    """Write one text for each prompt."""
    sampling = Sampling(temperature=0, top_p=1, max_tokens=arguments.max_tokens)
    completions = model.generate(
        [
            GenerateRequest(instruction=row["system"], prompt=row["user"], seeds=(0,), sampling=sampling)
            for row in rows.iter_rows(named=True)
        ]
    )
    texts = [completion.candidates[0].text for completion in completions]
    return Output(
        rows=rows.select("row_id").with_columns(text=pl.Series(texts)),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(completion.candidates[0].tokens_out for completion in completions),
    )


def main(prompts: str, model: str, max_tokens: str, threads: str) -> None:
    """Run and print the figures."""
    quiet_libraries()
    spec = ModelSpec(engine="vllm", model=model, dtype="bfloat16")

    def run(rows: Sequence[dict[str, str]]) -> tuple[float, int]:
        started = time.perf_counter()
        source = Stage(name="ask", function=ask, arguments=Asked(rows=tuple(rows)), contract=ASKED)
        stage = Stage(
            name="answer",
            function=answer,
            arguments=Answering(max_tokens=int(max_tokens)),
            contract=ANSWERED,
            inputs=(source,),
            model=spec,
            part_rows=PART_ROWS,
        )
        with TemporaryDirectory(prefix="normloom-bench-") as folder:
            pool = Pool(Resources(threads=int(threads)))
            runner = StageRunner(
                system="bench", store=Store(Path(folder)), pool=pool, build="bench", progress=LogProgress()
            )
            asked = runner.run(source, [], [])[0].ref
            manifest, _ = runner.run(stage, [asked], [])
            pool.close()
        return time.perf_counter() - started, manifest.tokens_out

    print(json.dumps(marginal(run, read(Path(prompts)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
