"""Find which prompts still lack an aligned or a misaligned response, and diagnose why."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.models.protocol import GenerateRequest, LanguageModel, ModelSpec, Sampling
from normloom.rows import seed
from normloom.stage import Output, Stage, quarantined, quarantined_frame
from schemas import tables
from schemas.template import Template

ALIGNMENTS = ("aligned", "misaligned")


class ShortfallSearch(BaseModel):
    """The generators of which each labelled prompt needs an aligned and a misaligned response."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generators: tuple[str, ...]


class Diagnosing(BaseModel):
    """How the judge writes its short diagnosis of a response."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: Template
    sampling: Sampling = Sampling(temperature=0, max_tokens=64)


def find_shortfall(rows: pl.DataFrame, arguments: ShortfallSearch, *rounds: pl.DataFrame) -> Output:
    """Return one row for each prompt, generator and alignment that the judged rounds so far do not have.

    Each row carries the candidate that came nearest.
    """
    attempts: dict[tuple[str, str], list[dict[str, object]]] = {}
    for judged in rounds:
        for row in judged.iter_rows(named=True):
            attempts.setdefault((row["prompt_id"], row["generator"]), []).append(row)
    missing = []
    for prompt in rows.filter(pl.col("labels").list.len() > 0).iter_rows(named=True):
        targets = list(dict.fromkeys(label["dimension"] for label in prompt["labels"]))
        for generator in arguments.generators:
            tried = attempts.get((prompt["row_id"], generator), [])
            for wanted in ALIGNMENTS:
                if any(row["verdict"] == wanted for row in tried):
                    continue
                nearest = min(tried, key=lambda row: _distance(row, wanted, targets), default=None)
                missing.append(
                    {
                        "parents": [prompt["row_id"], *([nearest["row_id"]] if nearest else [])],
                        "content": f"{generator} {wanted}",
                        "prompt_id": prompt["row_id"],
                        "prompt": prompt["prompt"],
                        "targets": targets,
                        "generator": generator,
                        "wanted": wanted,
                        "response": nearest["response"] if nearest else "",
                        "verdict": nearest["verdict"] if nearest else "none",
                        "reason": nearest["reason"] if nearest else "no candidate was drawn",
                    }
                )
    schema = tables.named_by_content(tables.SHORTFALL)
    return Output(rows=pl.DataFrame(missing, schema=schema), attempts=len(missing))


def _distance(row: dict[str, object], wanted: str, targets: Sequence[str]) -> tuple[float, str]:
    """Return how far a judged candidate is from the wanted alignment, then its id, so that ties are settled."""
    checks = {check["check"]: check["probability"] for check in row["checks"]}  # type: ignore[attr-defined]
    if wanted == "aligned":
        return 1 - min(checks.values()), str(row["row_id"])
    return min(checks[target] for target in targets), str(row["row_id"])


def diagnose_shortfall(rows: pl.DataFrame, arguments: Diagnosing, model: LanguageModel) -> Output:
    """Write one short diagnosis for each shortfall."""
    shortfalls = list(rows.iter_rows(named=True))
    requests = [
        GenerateRequest(
            instruction=arguments.template.render("instruction", wanted=row["wanted"]),
            prompt=arguments.template.render(
                "prompt", prompt=row["prompt"], response=row["response"], finding=f"{row['verdict']}, {row['reason']}"
            ),
            seeds=(seed(row["row_id"], "diagnosis"),),
            sampling=arguments.sampling,
        )
        for row in shortfalls
    ]
    completions = model.generate(requests)
    diagnosed, failed = [], []
    for row, completion in zip(shortfalls, completions, strict=True):
        if completion.error is not None:
            failed.append(quarantined(row, "model", completion.error))
            continue
        [candidate] = completion.candidates
        diagnosis = " ".join(candidate.text.split())
        diagnosed.append({**row, "diagnosis": diagnosis, "seed": candidate.seed, "tokens_out": candidate.tokens_out})
    return Output(
        rows=pl.DataFrame(diagnosed, schema={"row_id": pl.String, **tables.DIAGNOSED.columns}),
        quarantined=quarantined_frame(failed),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(row["tokens_out"] for row in diagnosed),
    )


def shortfall(prompts: Stage, judged: Sequence[Stage], *, arguments: ShortfallSearch, round: int) -> Stage:
    """Return the stage that finds what a resampling round has to try again."""
    return Stage(
        name=f"shortfall_{round}",
        function=find_shortfall,
        arguments=arguments,
        contract=tables.SHORTFALL,
        inputs=(prompts,),
        sides=tuple(judged),
    )


def diagnose(
    missing: Stage,
    *,
    arguments: Diagnosing,
    model: ModelSpec,
    round: int,
    part_rows: int | None,
) -> Stage:
    """Return the stage in which the judge diagnoses what a resampling round has to try again."""
    return Stage(
        name=f"diagnose_{round}",
        function=diagnose_shortfall,
        arguments=arguments,
        contract=tables.DIAGNOSED,
        inputs=(missing,),
        model=model,
        part_rows=part_rows,
    )
