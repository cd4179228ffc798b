from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hand_made import ANY, Answerer, Writer, carry_out

from normloom.core.models.protocol import Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas import benchmark_tables
from normloom.schemas.template import Template, load_template
from normloom.tasks.benchmark.detect import Detecting, Writing, detect, read, verdict_of, write
from normloom.testing.toy import SCRIPTED

TEMPLATE = Template(
    name="detect",
    sections={
        "instruction": "Review.",
        "context": "<$prompt|$response>",
        "question misaligned": "misaligned?",
        "question safety": "safety?",
        "question value": "value?",
        "written instruction": "Write.",
        "written prompt": "($prompt|$response)",
    },
)
SCORING = Detecting(template=TEMPLATE)
WRITING = Writing(template=TEMPLATE, runs=2)


def items(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Rows of an id, a response and its alignment."""
    made = [
        {
            "row_id": row_id,
            "parents": [],
            "prompt_id": f"prompt of {row_id}",
            "prompt": "why",
            "response": response,
            "alignment": alignment,
            "generator": "g",
            "dimensions": ["safety"],
            "labels": [],
        }
        for row_id, response, alignment in rows
    ]
    return pl.DataFrame(made, schema=benchmark_tables.ITEMS.schema)


def detected(arguments: Detecting, model: object, *rows: tuple[str, str, str]) -> Output:
    stage = detect(ANY, arguments, SCRIPTED, entrant="m", dimensions=("safety", "value"))
    return carry_out(stage, items(*rows), model=model)


def written(model: object, *rows: tuple[str, str, str]) -> tuple[Output, Output]:
    """Return what the model writes and what is read of it."""
    writing = write(ANY, WRITING, SCRIPTED, entrant="m")
    replies = carry_out(writing, items(*rows), model=model)
    return replies, carry_out(read(ANY, writing, entrant="m"), items(*rows), replies.rows)


def suspicious(context: str, question: str) -> Sequence[float]:
    """Misaligned with 0.8 where the response says bad, else with 0.3; in safety with 0.6, in value with 0.1."""
    yes = {"misaligned?": 0.8 if "bad" in context else 0.3, "safety?": 0.6, "value?": 0.1}[question]
    return yes, 1 - yes


def test_a_scored_verdict_is_the_probability_of_the_question_about_the_response() -> None:
    model = Answerer(suspicious)
    made = detected(SCORING, model, ("a", "bad", "aligned"), ("b", "good", "misaligned"))
    assert made.rows["misaligned"].to_list() == pytest.approx([0.8, 0.3])
    assert made.rows.select("parents", "alignment", "dimensions", "model", "run").rows() == [
        (["a"], "aligned", ["safety"], "m", 0),
        (["b"], "misaligned", ["safety"], "m", 0),
    ]
    checks = made.rows["checks"][0].to_list()
    assert [check["check"] for check in checks] == ["safety", "value"]
    assert [check["probability"] for check in checks] == pytest.approx([0.6, 0.1])
    assert [request.context for request in model.requests] == ["<why|bad>", "<why|good>"]
    assert model.requests[0].questions == ("misaligned?", "safety?", "value?")


def test_a_response_that_does_not_fit_is_quarantined_alone() -> None:
    made = detected(SCORING, Answerer(suspicious, too_long="long"), ("a", "good", "aligned"), ("b", "long", "aligned"))
    assert made.rows["parents"].to_list() == [["a"]]
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [("b", "model", "the context does not fit")]


def test_written_verdicts_are_drawn_once_a_run_with_a_seed_of_row_and_run() -> None:
    model = Writer("It is rude. Verdict: misaligned", "Verdict: aligned", "I cannot say.", "aligned")
    replies, made = written(model, ("a", "bad", "misaligned"), ("b", "good", "aligned"))
    assert replies.rows["parents"].to_list() == [["a"], ["a"], ["b"], ["b"]]
    assert made.rows["parents"].to_list() == [[reply] for reply in replies.rows["row_id"]]
    assert made.rows.select("alignment", "run", "misaligned", "problem", "reply").rows() == [
        ("misaligned", 0, 1.0, None, "It is rude. Verdict: misaligned"),
        ("misaligned", 1, 0.0, None, "Verdict: aligned"),
        ("aligned", 0, None, "no verdict", "I cannot say."),
        ("aligned", 1, 0.0, None, "aligned"),
    ]
    assert made.rows["checks"].list.len().to_list() == [0] * 4
    assert made.rows["seed"].to_list() == [seed(row, "m", run) for row in ("a", "b") for run in (0, 1)]
    assert made.rows["row_id"].n_unique() == 4
    assert [request.prompt for request in model.requests] == ["(why|bad)", "(why|good)"]
    assert replies.tokens_out == 5 + 2 + 3 + 1


def test_verdicts_are_written_as_in_the_paper() -> None:
    model = Writer()
    written(model, ("a", "bad", "aligned"))
    [request] = model.requests
    assert request.sampling == Sampling(temperature=0.7, top_p=0.9, max_tokens=512, repetition_penalty=1.1)


def test_a_prompt_that_cannot_be_written_about_costs_one_attempt() -> None:
    model = Writer(last="Verdict: aligned", too_long="long")
    replies, made = written(model, ("a", "good", "aligned"), ("b", "long", "aligned"))
    assert (replies.rows.height, replies.quarantined.height, replies.attempts) == (2, 1, 3)
    assert (made.rows.height, made.attempts) == (2, 2)


@pytest.mark.parametrize(
    ("reply", "misaligned", "problem"),
    [
        ("Verdict: misaligned", 1, None),
        ("The reply is rude.\n**Verdict:** Misaligned.", 1, None),
        ("VERDICT: ALIGNED\n", 0, None),
        ("The verdict is aligned", 0, None),
        ("My verdict is: misaligned", 1, None),
        (" Misaligned.", 1, None),
        ("Verdict: aligned\nVerdict: aligned", 0, None),
        ("Verdict: aligned, no, verdict: misaligned", None, "two verdicts"),
        ("The response is misaligned with safety.", None, "no verdict"),
        ("Verdict: not aligned", None, "no verdict"),
        ("Verdict: unaligned", None, "no verdict"),
        ('End with "Verdict: aligned" or "Verdict: misaligned".', None, "two verdicts"),
        ("", None, "no verdict"),
    ],
)
def test_a_verdict_is_read_or_said_to_be_missing(reply: str, misaligned: float | None, problem: str | None) -> None:
    assert verdict_of(reply) == (misaligned, problem)


def test_the_template_that_is_shipped_asks_for_the_verdict_that_is_read() -> None:
    instruction = load_template("detect").render("written instruction")
    offered = [part for part in instruction.split('"') if part.startswith("Verdict")]
    assert [verdict_of(part)[0] for part in offered] == [0, 1]
