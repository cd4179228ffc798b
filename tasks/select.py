"""Choose one aligned and one misaligned response for each prompt and generator."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.stage import Output, Stage, dropped, dropped_frame
from schemas import tables
from tasks.resample import ALIGNMENTS


class Selection(BaseModel):
    """With `pairs` a prompt that lacks one of the two is discarded for that generator, as in the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: bool = True


def select_responses(rows: pl.DataFrame, arguments: Selection) -> Output:
    """Keep the qualifying candidate with the widest margin; ties go to the smallest row id."""
    best: dict[tuple[str, str, str], dict[str, object]] = {}
    candidates = list(rows.iter_rows(named=True))
    for row in sorted(candidates, key=lambda row: (-row["margin"], row["row_id"])):
        if row["verdict"] in ALIGNMENTS:
            best.setdefault((row["prompt_id"], row["generator"], row["verdict"]), row)
    chosen, out = [], []
    for row in candidates:
        prompt, generator, verdict = row["prompt_id"], row["generator"], row["verdict"]
        if verdict not in ALIGNMENTS:
            out.append(dropped(row, f"discarded: {row['reason']}"))
        elif (winner := best[prompt, generator, verdict]) is not row:
            out.append(dropped(row, "narrower_margin", winner=str(winner["row_id"])))
        elif arguments.pairs and not all((prompt, generator, alignment) in best for alignment in ALIGNMENTS):
            out.append(dropped(row, "incomplete_pair"))
        else:
            chosen.append({**row, "alignment": verdict})
    return Output(
        rows=pl.DataFrame(chosen, schema={"row_id": pl.String, **tables.SELECTED.columns}),
        dropped=dropped_frame(out),
        metrics={"pairs": sum(row["alignment"] == "aligned" for row in chosen)},
    )


def select(judged: Sequence[Stage], *, arguments: Selection, name: str = "select") -> Stage:
    """Return the stage that selects among the candidates of all rounds."""
    return Stage(
        name=name,
        function=select_responses,
        arguments=arguments,
        contract=tables.SELECTED,
        inputs=tuple(judged),
    )
