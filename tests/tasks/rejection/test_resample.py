from __future__ import annotations

import polars as pl
from hand_made import ANY, Writer, carry_out, unique

from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.template import Template
from normloom.tasks.rejection.resample import Diagnosing, diagnose, shortfall
from normloom.testing.toy import SCRIPTED

REVIEW = Template(
    name="review",
    sections={"instruction": "Wanted: $wanted.", "prompt": "$prompt|$response|$finding"},
)


def judged(*rows: tuple[str, str, str, str, list[float]]) -> pl.DataFrame:
    """Judged candidates of an id, a prompt id, a generator, a verdict and the checks on safety, value and task."""
    made = [
        {
            "row_id": row_id,
            "prompt_id": prompt,
            "generator": generator,
            "response": f"response {row_id}",
            "verdict": verdict,
            "reason": f"reason {row_id}",
            "checks": [
                {"check": name, "probability": value}
                for name, value in zip(("safety", "value", "on_task"), probabilities, strict=True)
            ],
        }
        for row_id, prompt, generator, verdict, probabilities in rows
    ]
    schema = {**tables.JUDGED.schema}
    return pl.DataFrame(made, schema={name: schema[name] for name in made[0]} if made else schema)


def missing(prompts: pl.DataFrame, *rounds: pl.DataFrame, generators: tuple[str, ...] = ("g",)) -> Output:
    stage = shortfall(ANY, *[ANY] * len(rounds), generators=generators)
    return carry_out(stage, prompts, *rounds)


def test_a_shortfall_is_each_alignment_that_no_round_has_for_prompt_and_generator() -> None:
    first = judged(
        ("a", "one", "g", "aligned", [0.9, 0.9, 0.9]),
        ("b", "one", "h", "discarded", [0.9, 0.9, 0.1]),
        ("c", "two", "g", "aligned", [0.9, 0.9, 0.9]),
    )
    second = judged(("d", "two", "g", "misaligned", [0.1, 0.9, 0.9]), ("e", "two", "h", "aligned", [0.9, 0.9, 0.9]))
    made = missing(unique(one=["safety"], two=["safety"]), first, second, generators=("g", "h"))
    assert made.rows.select("prompt_id", "generator", "wanted").rows() == [
        ("one", "g", "misaligned"),
        ("one", "h", "aligned"),
        ("one", "h", "misaligned"),
        ("two", "h", "misaligned"),
    ]


def test_a_prompt_without_a_label_lacks_nothing() -> None:
    assert missing(unique(one=[]), judged()).rows.is_empty()


def test_the_candidate_nearest_to_aligned_is_the_one_whose_weakest_check_is_best() -> None:
    rows = judged(
        ("a", "one", "g", "discarded", [0.9, 0.2, 0.9]),
        ("b", "one", "g", "discarded", [0.6, 0.4, 0.8]),
        ("c", "one", "g", "discarded", [0.9, 0.9, 0.3]),
    )
    made = missing(unique(one=["safety"]), rows).rows.filter(wanted="aligned")
    assert made.select("response", "verdict", "reason", "parents").rows() == [
        ("response b", "discarded", "reason b", ["one", "b"])
    ]


def test_the_candidate_nearest_to_misaligned_is_the_one_whose_worst_target_check_is_worst() -> None:
    rows = judged(
        ("a", "one", "g", "aligned", [0.1, 0.8, 0.9]),  # safety is no target
        ("b", "one", "g", "aligned", [0.9, 0.6, 0.9]),
        ("c", "one", "g", "aligned", [0.9, 0.7, 0.9]),
    )
    made = missing(unique(one=["value"]), rows).rows
    assert made.select("wanted", "response", "targets").rows() == [("misaligned", "response b", ["value"])]


def test_equally_near_candidates_are_told_apart_by_row_id() -> None:
    rows = [(name, "one", "g", "discarded", [0.9, 0.3, 0.9]) for name in ("c", "a", "b")]
    made = missing(unique(one=["value"]), judged(*rows)).rows
    assert made["response"].to_list() == ["response a", "response a"]


def test_a_prompt_of_which_nothing_was_drawn_says_so() -> None:
    made = missing(unique(one=["value", "safety", "value"]), judged()).rows
    assert made.select("wanted", "response", "verdict", "reason", "parents", "targets").rows() == [
        (wanted, "", "none", "no candidate was drawn", ["one"], ["value", "safety"])
        for wanted in ("aligned", "misaligned")
    ]


def lacking(row_id: str, wanted: str) -> dict[str, object]:
    return {
        "row_id": row_id,
        "parents": [],
        "prompt_id": "one",
        "prompt": "one?",
        "targets": ["value"],
        "generator": "g",
        "wanted": wanted,
        "response": "so what",
        "verdict": "discarded",
        "reason": "off_task",
    }


def diagnosed(model: Writer, *rows: dict[str, object]) -> Output:
    stage = diagnose(ANY, Diagnosing(diagnosis_template=REVIEW), SCRIPTED)
    return carry_out(stage, pl.DataFrame(rows, schema=tables.SHORTFALL.schema), model=model)


def test_the_judge_is_told_what_is_wanted_and_found_and_its_diagnosis_is_one_line() -> None:
    model = Writer(" It dodges.\n\n Answer it. ", "It is\tkind.")
    made = diagnosed(model, lacking("s1", "aligned"), lacking("s2", "misaligned"))
    assert made.rows.select("parents", "wanted", "diagnosis", "seed", "tokens_out").rows() == [
        (["s1"], "aligned", "It dodges. Answer it.", seed("s1", "diagnosis"), 4),
        (["s2"], "misaligned", "It is kind.", seed("s2", "diagnosis"), 3),
    ]
    assert [request.instruction for request in model.requests] == ["Wanted: aligned.", "Wanted: misaligned."]
    assert model.requests[0].prompt == "one?|so what|discarded, off_task"
    assert model.requests[0].sampling.temperature == 0
    assert (made.tokens_in, made.tokens_out) == (20, 7)


def test_a_shortfall_that_does_not_fit_the_judge_is_quarantined_alone() -> None:
    long = {**lacking("s1", "aligned"), "response": "long"}
    made = diagnosed(Writer(last="fine", too_long="long"), long, lacking("s2", "aligned") | {"prompt_id": "two"})
    assert made.rows["parents"].to_list() == [["s2"]]
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [("s1", "model", "the prompt does not fit")]
