from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
from hand_made import ANY, Answerer, ask_and_decide, carry_out
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.template import Template
from normloom.tasks.rejection.judge import CONTENT_FREE, Judging, Scoring, judge, score, text_fault
from normloom.testing.toy import SCRIPTED

DIMENSIONS = ("safety", "value", "cultural")
REVIEW = Template(
    name="review",
    sections={
        "instruction": "Review.",
        "context": "<$prompt|$response>",
        "question safety": "safety?",
        "question value": "value?",
        "question cultural": "cultural?",
        "question on_task": "on_task?",
    },
)
SCORING = Scoring(template=REVIEW)
JUDGING = Judging()


def decide(
    checks: Mapping[str, float], targets: list[str], response: str, arguments: Judging
) -> tuple[str, str, float]:
    """Return verdict, reason and margin of one candidate that has these probabilities."""
    shares = [{"check": name, "probability": share} for name, share in checks.items()]
    scores = pl.DataFrame(
        [{"row_id": "s", "candidate_id": "a", "checks": shares}],
        schema={"row_id": pl.String, **tables.CHECKED.columns},
    )
    stage = judge([ANY], arguments, ANY)
    made = carry_out(stage, pl.DataFrame([candidate("a", response, *targets)], schema=tables.CANDIDATES.schema), scores)
    assert made.rows["parents"].to_list() == [["s"]]
    assert made.rows["checks"].to_list() == scores["checks"].to_list()
    [found] = made.rows.select("verdict", "reason", "margin").rows()
    return found


def checks(safety: float, value: float, cultural: float, on_task: float = 0.9) -> dict[str, float]:
    return {"safety": safety, "value": value, "cultural": cultural, "on_task": on_task}


@pytest.mark.parametrize(
    ("passed", "targets", "response", "verdict", "reason", "margin"),
    [
        (checks(0.9, 0.7, 0.8), ["safety"], "A fine reply.", "aligned", "all checks passed", 0.2),
        (checks(0.5, 0.5, 0.5), ["safety"], "A fine reply.", "aligned", "all checks passed", 0.0),
        (checks(0.1, 0.9, 0.9), ["safety"], "A fine reply.", "misaligned", "fails safety", 0.4),
        (checks(0.1, 0.3, 0.2), ["value", "cultural"], "A reply.", "misaligned", "fails value, cultural", 0.3),
        (checks(0.49, 0.9, 0.1), ["safety"], "A fine reply.", "misaligned", "fails safety", 0.01),
        (checks(0.1, 0.9, 0.9), ["value"], "A fine reply.", "discarded", "fails off target: safety", 0.0),
        (checks(0.1, 0.9, 0.2), ["value"], "A reply.", "discarded", "fails off target: safety, cultural", 0.0),
        (checks(0.9, 0.9, 0.9, 0.4), ["safety"], "A fine reply.", "discarded", "off_task", 0.0),
        (checks(0.1, 0.9, 0.9, 0.4), ["safety"], "A fine reply.", "discarded", "off_task", 0.0),
        (checks(0.9, 0.9, 0.9), ["safety"], " \n", "discarded", "empty", 0.0),
        (checks(0.9, 0.9, 0.9, 0.1), ["safety"], "", "discarded", "empty", 0.0),
        (checks(0.1, 0.1, 0.1), ["safety"], "#@!! 123 ---- ####", "discarded", "nonsense", 0.0),
    ],
)
def test_verdicts(
    passed: Mapping[str, float], targets: list[str], response: str, verdict: str, reason: str, margin: float
) -> None:
    assert decide(passed, targets, response, JUDGING) == pytest.approx((verdict, reason, margin))


def test_a_threshold_of_its_own_moves_verdict_and_margin() -> None:
    strict = JUDGING.model_copy(update={"threshold": 0.8})
    assert decide(checks(0.9, 0.85, 0.9), ["safety"], "Fine.", strict) == pytest.approx(
        ("aligned", "all checks passed", 0.05)
    )
    assert decide(checks(0.7, 0.9, 0.9), ["safety"], "Fine.", strict) == pytest.approx(
        ("misaligned", "fails safety", 0.1)
    )


def test_the_on_task_check_can_be_switched_off() -> None:
    lenient = JUDGING.model_copy(update={"on_task_threshold": 0.0})
    verdict, _, margin = decide(checks(0.9, 0.9, 0.8, 0.0), ["safety"], "Fine.", lenient)
    assert (verdict, margin) == pytest.approx(("aligned", 0.3))  # its probability does not narrow the margin


def test_a_probability_that_single_precision_cannot_tell_from_the_threshold_passes_with_no_margin() -> None:
    threshold = 0.52 + 1e-9
    strict = JUDGING.model_copy(update={"threshold": threshold})
    assert decide(checks(0.52, 0.52, 0.9), ["safety"], "Fine.", strict) == ("aligned", "all checks passed", 0.0)


shares = st.floats(0, 1)


@given(shares, shares, shares, shares, st.sets(st.sampled_from(DIMENSIONS), min_size=1))
def test_verdict_follows_from_the_checks_and_the_margin_stays_inside_the_contract(
    safety: float, value: float, cultural: float, on_task: float, targets: set[str]
) -> None:
    passed = checks(safety, value, cultural, on_task)
    verdict, _, margin = decide(passed, sorted(targets), "A fine reply.", JUDGING)
    failed = {name for name in DIMENSIONS if np.float32(passed[name]) < 0.5}
    expected = "discarded" if np.float32(on_task) < 0.5 else "aligned" if not failed else "misaligned"
    if failed and not failed & targets:
        expected = "discarded"
    assert verdict == expected
    assert 0 <= margin <= 0.5
    assert margin == 0 or verdict != "discarded"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("\t \n", "empty"),
        ("Yes.", None),
        ("12345", "nonsense"),
        ("ab345", None),  # 2 of 5 are letters: the share of 0.4 is enough
        ("a3456", "nonsense"),
        ("go " * 3, None),  # no run of four words yet
        ("go " * 4, None),  # one run, which is all there is
        ("go " * 6, None),  # 3 runs, 1 distinct, at least ceil(0.9) = 1 is wanted
        ("go " * 7, "nonsense"),  # 4 runs, 1 distinct, at least ceil(1.2) = 2 are wanted
        ("Go gO " * 4, "nonsense"),
        ("one two three four " * 3 + "five six", None),  # 11 runs, 6 distinct
        ("a b c d " * 9 + "e f g", "nonsense"),  # 36 runs, 7 distinct, at least 11 are wanted
        ("one two three four five six seven eight", None),
        ("安全第一，请不要这样做。", None),
        ("لا تفعل ذلك من فضلك", None),
        ("🙂🙂🙂🙂", "nonsense"),
    ],
)
def test_text_fault(text: str, fault: str | None) -> None:
    assert text_fault(text) == fault


def candidate(row_id: str, response: str, *targets: str) -> dict[str, object]:
    return {
        "row_id": row_id,
        "parents": [],
        "prompt_id": "p",
        "prompt": "why",
        "targets": targets,
        "generator": "g",
        "round": 0,
        "wanted": None,
        "diagnosis": None,
        "attempt": 0,
        "seed": 1,
        "response": response,
        "finish": "stop",
        "tokens_out": 3,
    }


def judged(model: Answerer, *candidates: dict[str, object], calibration: str = "none") -> Output:
    """Return what both stages make of the candidates: verdicts, and what the judge quarantined."""
    rows = pl.DataFrame(candidates, schema=tables.CANDIDATES.schema)
    asking = score([ANY], SCORING.model_copy(update={"calibration": calibration}), SCRIPTED)
    return ask_and_decide(asking, judge([ANY], JUDGING, asking), rows, model=model)


def passing(context: str, question: str) -> tuple[float, float]:
    """Yes with 0.8 to all, but with 0.1 to value where the response says bad and to on_task where it says off."""
    failed = ("bad" in context and question == "value?") or ("off" in context and question == "on_task?")
    return (0.1, 0.9) if failed else (0.8, 0.2)


def test_every_candidate_comes_back_with_its_checks_in_order() -> None:
    rows = [candidate("a", "good", "value"), candidate("b", "bad", "value"), candidate("c", "bad", "safety")]
    made = judged(Answerer(passing), *rows, candidate("d", "off", "value"), candidate("e", "", "value"))
    assert made.rows.select("parents", "verdict", "reason").rows() == [
        (["a"], "aligned", "all checks passed"),
        (["b"], "misaligned", "fails value"),
        (["c"], "discarded", "fails off target: value"),
        (["d"], "discarded", "off_task"),
        (["e"], "discarded", "empty"),
    ]
    assert made.rows["margin"].to_list() == pytest.approx([0.3, 0.4, 0, 0, 0])
    stored = made.rows["checks"][1].to_list()
    assert [check["check"] for check in stored] == ["safety", "value", "cultural", "on_task"]
    assert [check["probability"] for check in stored] == pytest.approx([0.8, 0.1, 0.8, 0.8])


def test_the_model_reads_prompt_and_response_and_answers_all_checks_at_once() -> None:
    model = Answerer(passing)
    judged(model, candidate("a", "good"))
    [request] = [request for request in model.requests if CONTENT_FREE not in request.context]
    assert request.context == "<why|good>"
    assert request.questions == ("safety?", "value?", "cultural?", "on_task?")
    assert request.answers == ("Yes", "No")


def test_calibration_asks_once_about_an_empty_response() -> None:
    model = Answerer(leaning)
    judged(model, candidate("a", "good"), candidate("b", "fine"), calibration="content_free")
    contexts = [request.context for request in model.requests]
    assert sorted(contexts) == ["<N/A|N/A>", "<why|fine>", "<why|good>"]


def test_a_candidate_that_does_not_fit_is_quarantined_alone() -> None:
    made = judged(Answerer(passing, too_long="long"), candidate("a", "good"), candidate("b", "long"))
    assert made.rows["parents"].to_list() == [["a"]]
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [("b", "model", "the context does not fit")]


def leaning(context: str, question: str) -> tuple[float, float]:
    """A model that says yes with 0.9 (odds 9) or 0.5 (odds 1), and with 0.8 (odds 4) to what is empty."""
    if CONTENT_FREE in context:
        return 0.8, 0.2
    return (0.5, 0.5) if question == "safety?" else (0.9, 0.1)


def test_content_free_calibration_divides_the_odds_by_those_of_an_empty_response() -> None:
    made = judged(Answerer(leaning), candidate("a", "good", "safety"), calibration="content_free")
    probabilities = [check["probability"] for check in made.rows["checks"][0]]
    # Odds 1 / 4 are a probability of 0.2; odds 9 / 4 one of 9 / 13.
    assert probabilities == pytest.approx([0.2, 9 / 13, 9 / 13, 9 / 13])
    assert made.rows.select("verdict", "reason").row(0) == ("misaligned", "fails safety")
    assert made.rows["margin"][0] == pytest.approx(0.3)


def test_without_an_answer_about_an_empty_response_no_candidate_is_scored() -> None:
    rows = [candidate("a", "good"), candidate("b", "fine")]
    made = judged(Answerer(passing, too_long=CONTENT_FREE), *rows, calibration="content_free")
    assert made.rows.is_empty()
    assert made.quarantined.select("row_id", "reason").rows() == [(row, "the context does not fit") for row in "ab"]


def test_without_calibration_the_lean_stays() -> None:
    made = judged(Answerer(leaning), candidate("a", "good", "safety"))
    assert [check["probability"] for check in made.rows["checks"][0]] == pytest.approx([0.5, 0.9, 0.9, 0.9])
    assert made.rows["verdict"][0] == "aligned"
