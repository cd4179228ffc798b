from __future__ import annotations

import polars as pl
import pytest
from hand_made import ANY, Answerer, Writer, carry_out

from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas import benchmark_tables
from normloom.schemas.template import Template
from normloom.tasks.benchmark.respond import Responding, assess, questions, respond
from normloom.tasks.rejection.judge import Scoring
from normloom.testing.toy import SCRIPTED

DIMENSIONS = ("safety", "value", "cultural")
ANSWERING = Responding(
    runs=2, template=Template(name="respond", sections={"instruction": "Answer.", "prompt": "> $prompt"})
)
REVIEW = Template(
    name="judge",
    sections={
        "instruction": "Review.",
        "context": "<$prompt|$response>",
        **{f"question {name}": f"{name}?" for name in (*DIMENSIONS, "on_task")},
    },
)


def items(*rows: tuple[str, str, list[str]]) -> pl.DataFrame:
    """Rows of an id, the id of a prompt and its dimensions."""
    made = [
        {
            "row_id": row_id,
            "parents": [],
            "prompt_id": prompt,
            "prompt": f"{prompt}?",
            "response": row_id,
            "alignment": "aligned",
            "generator": "g",
            "dimensions": dimensions,
            "labels": [],
        }
        for row_id, prompt, dimensions in rows
    ]
    return pl.DataFrame(made, schema=benchmark_tables.ITEMS.schema)


def asked(*rows: tuple[str, str, list[str]]) -> pl.DataFrame:
    return carry_out(questions(ANY), items(*rows)).rows


def answered(model: object, *prompts: str) -> Output:
    rows = asked(*((f"item of {prompt}", prompt, ["safety"]) for prompt in prompts))
    return carry_out(respond(ANY, ANSWERING, SCRIPTED, entrant="m"), rows, model=model)


def test_each_prompt_is_asked_once_however_many_responses_are_stored() -> None:
    made = asked(("a", "p", ["safety", "value"]), ("b", "q", []), ("c", "p", ["safety", "value"]))
    assert made.select("prompt_id", "prompt", "dimensions", "parents").rows() == [
        ("p", "p?", ["safety", "value"], ["a", "c"]),
        ("q", "q?", [], ["b"]),
    ]


def test_a_response_is_drawn_for_each_run_with_a_seed_of_prompt_model_and_run() -> None:
    model = Writer("one", " two ", "three", "four")
    made = answered(model, "p", "q")
    assert made.rows.select("prompt_id", "model", "run", "response", "dimensions").rows() == [
        ("p", "m", 0, "one", ["safety"]),
        ("p", "m", 1, "two", ["safety"]),
        ("q", "m", 0, "three", ["safety"]),
        ("q", "m", 1, "four", ["safety"]),
    ]
    assert made.rows["seed"].to_list() == [seed(prompt, "m", run) for prompt in "pq" for run in (0, 1)]
    assert [(request.instruction, request.prompt) for request in model.requests] == [
        ("Answer.", "> p?"),
        ("Answer.", "> q?"),
    ]


def test_a_prompt_that_does_not_fit_is_quarantined_alone() -> None:
    made = answered(Writer(last="fine", too_long="long"), "p", "long")
    assert made.rows["prompt_id"].to_list() == ["p", "p"]
    assert (made.quarantined["rule"].to_list(), made.attempts) == (["model"], 3)


def test_a_judge_leaves_its_probabilities_and_what_is_no_text_to_judge() -> None:
    def passing(context: str, question: str) -> tuple[float, float]:
        return (0.2, 0.8) if ("rude" in context and question == "value?") else (0.9, 0.1)

    responses = answered(Writer("a rude word", "a kind word", "", "### 123 ###"), "p", "q").rows
    stage = assess(ANY, Scoring(template=REVIEW), SCRIPTED, entrant="m", judge="j")
    made = carry_out(stage, responses, model=Answerer(passing))
    assert stage.name == "judge_m_by_j"
    assert made.rows["parents"].explode().to_list() == responses["row_id"].to_list()
    assert made.rows.select("prompt_id", "model", "run", "judge", "fault").rows() == [
        ("p", "m", 0, "j", None),
        ("p", "m", 1, "j", None),
        ("q", "m", 0, "j", "empty"),
        ("q", "m", 1, "j", "nonsense"),
    ]
    checks = {check["check"]: check["probability"] for check in made.rows["checks"][0].to_list()}
    assert checks == pytest.approx({"safety": 0.9, "value": 0.2, "cultural": 0.9, "on_task": 0.9})


def test_a_response_that_a_judge_cannot_read_is_quarantined_alone() -> None:
    responses = answered(Writer("fine", "endless"), "p").rows
    stage = assess(ANY, Scoring(template=REVIEW), SCRIPTED, entrant="m", judge="j")
    model = Answerer(lambda *_: (0.5, 0.5), too_long="endless")
    made = carry_out(stage, responses, model=model)
    assert made.rows["run"].to_list() == [0]
    assert made.quarantined["row_id"].to_list() == [responses["row_id"][1]]
