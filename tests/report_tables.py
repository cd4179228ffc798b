"""A system of tables whose figures are counted by hand, for the tests of the report."""

from __future__ import annotations

from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Contract
from normloom.core.stage import Output, Stage
from normloom.schemas import tables
from normloom.tasks.duplicates.deduplicate import Deduplication, deduplicate
from normloom.tasks.duplicates.duplicates import duplicates
from normloom.tasks.duplicates.split import Splitting, prompt_splits, split
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.testing.builds import build_id
from normloom.testing.toy import echo_stage, words_stage

ONE, TWO = build_id(1), build_id(2)
LABEL = "safety/<script>alert(1)</script>"
GENERATOR = "<img src=x onerror=alert(2)>"
PROMPTS = {
    "how do I bake bread at home today": [LABEL],
    "who may vote in this country and when": [LABEL, "value/equality"],
    "what makes a friendship last for many years": ["value/equality"],
    "How do I bake bread at home today": [LABEL],
}
FIRST, SECOND, THIRD, _ = PROMPTS


class Given(BaseModel):
    """The rows of a table under a contract of `normloom.schemas.tables`."""

    model_config = ConfigDict(frozen=True)
    contract: str
    rows: tuple[dict[str, Any], ...]


def give(arguments: Given) -> Output:
    rows = [{"parents": [], "content": str(number), **row} for number, row in enumerate(arguments.rows)]
    contract: Contract = getattr(tables, arguments.contract)
    return Output(rows=pl.DataFrame(rows, schema=tables.named_by_content(contract)), attempts=len(rows))


def given(name: str, contract: str, *rows: dict[str, Any]) -> Stage:
    arguments = Given(contract=contract, rows=rows)
    return Stage(name=name, function=give, arguments=arguments, contract=getattr(tables, contract))


class Candidates(BaseModel):
    """What the judge said: prompt, round, generator, verdict, reason and margin."""

    model_config = ConfigDict(frozen=True)
    said: tuple[tuple[str, int, str, str, str, float], ...]


def judge_as_said(rows: pl.DataFrame, arguments: Candidates) -> Output:
    ids = dict(rows.select("prompt", "row_id").iter_rows())
    judged = [
        {
            "parents": [ids[prompt]],
            "content": str(number),
            "prompt_id": ids[prompt],
            "prompt": prompt,
            "targets": [],
            "generator": generator,
            "round": round,
            "attempt": number,
            "seed": number,
            "response": "yes",
            "finish": "stop",
            "tokens_out": 1,
            "checks": [],
            "verdict": verdict,
            "reason": reason,
            "margin": margin,
        }
        for number, (prompt, round, generator, verdict, reason, margin) in enumerate(arguments.said)
    ]
    frame = pl.DataFrame(judged, schema=tables.named_by_content(tables.JUDGED))
    return Output(rows=frame, attempts=len(judged))


class Measured(BaseModel):
    model_config = ConfigDict(frozen=True)
    figures: tuple[dict[str, Any], ...]


def measure(arguments: Measured) -> Output:
    names = {"metric", "of", "axis", "slice_by", "slice"}
    return figures_output(
        [
            figure_row(
                Figure(**{name: value for name, value in each.items() if name not in names}),
                **{name: value for name, value in each.items() if name in names},
            )
            for each in arguments.figures
        ]
    )


def measured(name: str, *figures: dict[str, Any]) -> Stage:
    return Stage(name=name, function=measure, arguments=Measured(figures=figures), contract=tables.FIGURES)


def rater_figures() -> Stage:
    """Figures of every kind that the report draws, one of them undefined."""
    axes, dimensions = ("gender", "race"), ("safety", "value", "cultural")
    return measured(
        "rater_figures",
        {"metric": "icc2_1", "of": "panel", "value": 0.4, "low": 0.3, "high": 0.5, "rows": 350},
        {"metric": "icc2_k", "of": "panel", "value": 0.87, "low": 0.8, "high": 0.9, "rows": 350},
        {"metric": "alpha", "of": "panel", "value": 0.35, "rows": 350},
        *(
            {"metric": "icc2_1", "of": "panel", "slice_by": "domain", "slice": name, "value": 0.2, "rows": 9}
            for name in ("a", "b")
        ),
        {
            "metric": "icc2_1",
            "of": "panel",
            "slice_by": "domain",
            "slice": "<b>c</b>",
            "undefined": "one item only",
            "rows": 1,
        },
        *(
            {"metric": metric, "of": of, "axis": axis, "value": 0.1 + 0.1 * place, "rows": 99}
            for metric in ("ds", "dpd", "eod")
            for of in ("r1", "r2")
            for place, axis in enumerate(axes)
        ),
        {"metric": "ds", "of": "r1", "axis": "gender", "slice_by": "domain", "slice": "a", "value": 0.3, "rows": 9},
        *(
            {
                "metric": "share_yes",
                "of": "human",
                "slice_by": "rater_race x rater_gender",
                "slice": group,
                "value": value,
                "rows": 9,
            }
            for group, value in (("Asian x Man", 0.3), ("Asian x Woman", 0.4), ("White x Man", 0.2))
        ),
        {"metric": "undefined_pairs", "of": "panel", "value": 0, "rows": 3},
        *(
            {
                "metric": "trade_off",
                "of": "released responses",
                "axis": f"{start} to {end}",
                "slice_by": "semantic_type",
                "slice": "object",
                "value": 0.25,
                "rows": 20,
            }
            for start in dimensions
            for end in dimensions
            if start != end
        ),
        *(
            {"metric": metric, "of": of, "value": 0.5, "low": 0.4, "high": 0.7, "spread": 0.01, "rows": 40}
            for metric in ("coverage", "ffr", "as")
            for of in ("m1", "m2")
        ),
        *(
            {
                "metric": "labels_kept",
                "of": "classify",
                "axis": "safety",
                "slice_by": "delta",
                "slice": delta,
                "value": float(kept),
                "rows": 9,
            }
            for delta, kept in (("0.10", 9), ("0.50", 4), ("0.90", 1))
        ),
    )


def hand_made() -> list[Stage]:
    """A system of tables whose figures are counted by hand."""
    prompts = given(
        "classify_all",
        "LABELLED",
        *(
            {
                "prompt": prompt,
                "origin": "source",
                "labels": [{"dimension": label.partition("/")[0], "label": label} for label in labels],
                "probabilities": [],
            }
            for prompt, labels in PROMPTS.items()
        ),
    )
    unique = deduplicate(
        [prompts], duplicates(prompts, Deduplication()), without=("probabilities",), contract=tables.UNIQUE
    )
    said = Candidates(
        said=(
            (FIRST, 0, "g1", "aligned", "", 0.9),
            (FIRST, 0, GENERATOR, "misaligned", "", 0.1),
            (SECOND, 0, "g1", "discarded", "nonsense", 0.0),
            (SECOND, 1, "g1", "aligned", "", 0.5),
            (THIRD, 1, "g1", "discarded", "nonsense", 0.2),
            (THIRD, 1, "g1", "discarded", "off_task", 1.0),
        )
    )
    judged = Stage(name="judge_0", function=judge_as_said, arguments=said, contract=tables.JUDGED, inputs=(unique,))
    coverage = given(
        "coverage",
        "COVERAGE",
        {"dimension": "safety", "label": LABEL, "before": 3, "quota": 5, "added": 4, "missing": 1},
        {"dimension": "value", "label": "value/equality", "before": 2, "quota": 0, "added": 0, "missing": 0},
    )
    texts = (
        "apples",
        "pears and plums",
        "rain at sea",
        "old maps",
        "jazz",
        "wool",
        "tin roofs",
        "chess",
        "moss",
        "ink",
    )
    selected = given(
        "select",
        "SELECTED",
        *(
            {
                "prompt_id": text,
                "prompt": text,
                "generator": "g1",
                "round": 0,
                "response": "yes",
                "alignment": alignment,
                "checks": [],
                "margin": 0.5,
            }
            for text in texts
            for alignment in ("aligned", "misaligned")
        ),
    )
    parted = split([selected], prompt_splits([selected], Splitting()))
    echoed = echo_stage(words_stage(*"abcdef"), drop="b", aside="c")
    return [echoed, judged, coverage, parted, rater_figures()]
