from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from openai_toys import VARIABLE, asking, scoring, spec_of, writing
from pydantic import BaseModel
from scripted_server import KEY, MODEL, OVERFLOW, ScriptedServer, serving

from normloom.core.contract import Contract
from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import Closing, Metered, Turn
from normloom.core.stage import Output, Stage, quarantined, quarantined_frame
from normloom.models import GenerateRequest, LanguageModel, ModelSpec
from normloom.planning.keys import key_fields, stage_key
from normloom.store.store import Store
from normloom.testing.toy import runner, words_stage


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


class TestAnswers:
    def test_it_speaks_the_protocols(self, server: ScriptedServer) -> None:
        with asking(server.base_url) as model:
            assert isinstance(model, LanguageModel)
            assert isinstance(model, Metered)
            assert isinstance(model, Closing)

    def test_texts_are_those_of_the_model_behind_it(self, server: ScriptedServer) -> None:
        requests = [writing(f"prompt {i}", i, 2**63 - 1, max_tokens=20 + i, stop=("zz", "work")) for i in range(12)]
        with asking(server.base_url) as model:
            completions = model.generate(requests)
        direct = server.model.generate(requests)
        assert [completion.candidates for completion in completions] == [completion.candidates for completion in direct]
        assert [c.tokens_in for c in completions] == [2 * c.tokens_in for c in direct]  # read once for each seed
        assert {candidate.finish for c in completions for candidate in c.candidates} == {"stop", "length"}

    @pytest.mark.parametrize("system_role", [True, False])
    def test_a_history_is_sent_as_messages(self, server: ScriptedServer, system_role: bool) -> None:
        said = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"))
        with asking(server.base_url, system_role=system_role) as model:
            model.generate([replace(writing("Why?"), history=said)])
        lead = "write\n\nBe brief."
        first = [("system", lead), ("user", "Hi")] if system_role else [("user", f"{lead}\n\nHi")]
        sent = [(message["role"], message["content"]) for message in server.bodies[-1]["messages"]]
        assert sent == [*first, ("assistant", "Hello"), ("user", "Why?")]

    def test_without_a_system_role_a_history_that_the_assistant_begins_is_led_by_the_user(
        self, server: ScriptedServer
    ) -> None:
        with asking(server.base_url, system_role=False) as model:
            model.generate([replace(writing("Why?"), history=(Turn("assistant", "Hello"),))])
        sent = [(message["role"], message["content"]) for message in server.bodies[-1]["messages"]]
        assert sent == [("user", "write"), ("assistant", "Hello"), ("user", "Why?")]

    def test_an_answer_without_a_token_has_no_score(self) -> None:
        with serving(changes={"logprobs": {"content": []}}) as empty, asking(empty.base_url) as model:
            [scores] = model.score([scoring("context")])
        assert scores.error == "an answer is empty"

    def test_scores_are_those_of_the_model_behind_it(self, server: ScriptedServer) -> None:
        requests = [scoring(f"context {i}", questions=i % 4) for i in range(12)]
        with asking(server.base_url) as model:
            scores = model.score(requests)
        for found, wanted in zip(scores, server.model.score(requests), strict=True):
            assert found.error is None
            assert len(found.logprobs) == len(wanted.logprobs)
            for line, expected in zip(found.logprobs, wanted.logprobs, strict=True):
                assert line == pytest.approx(expected, rel=1e-9)

    def test_no_requests_give_no_answers(self, server: ScriptedServer) -> None:
        with asking(server.base_url) as model:
            assert model.generate([]) == []
            assert model.score([]) == []
            assert model.take_usage()["requests"] == 0

    def test_an_answer_that_is_not_listed_gets_an_upper_bound(self, server: ScriptedServer) -> None:
        with asking(server.base_url, top_logprobs=1) as model:
            [few] = model.score([scoring("bound", questions=8)])
        [all_] = server.model.score([scoring("bound", questions=8)])
        for line, true in zip(few.logprobs, all_.logprobs, strict=True):
            best = max(range(2), key=lambda place: true[place])
            assert line[best] == pytest.approx(true[best])
            assert true[1 - best] <= line[1 - best] <= line[best]
            assert math.exp(line[0]) + math.exp(line[1]) <= 1 + 1e-9

    def test_blanks_around_an_answer_do_not_count(self) -> None:
        with serving(fillers=("Maybe", " Yes", "I")) as server, asking(server.base_url) as model:
            [plain] = model.score([scoring("spelling")])
            [none] = model.score([scoring("spelling", answers=("yes", "no"))])
        [true] = server.model.score([scoring("spelling")])
        assert none.logprobs == ()
        assert "none of yes, no is among the likeliest answers" in (none.error or "")
        for found, strict in zip(plain.logprobs, true.logprobs, strict=True):
            assert found[0] > strict[0]  # with the token ' Yes'
            assert found[1] == pytest.approx(strict[1])

    @pytest.mark.parametrize("blanks", [("\n",), (" ", "\n\n")])
    def test_an_answer_after_blanks_is_read_behind_them(self, server: ScriptedServer, blanks: tuple[str, ...]) -> None:
        requests = [scoring(f"context {i}") for i in range(4)]
        with asking(server.base_url) as model:
            plain = model.score(requests)
        with serving(blanks=blanks) as indented, asking(indented.base_url, concurrency=1) as model:
            found = model.score(requests)
            assert len(indented.bodies) == 13  # one more than questions: that there are blanks is learnt once
        assert [scores.logprobs for scores in found] == [scores.logprobs for scores in plain]

    def test_requests_say_what_was_asked(self, server: ScriptedServer) -> None:
        server.bodies.clear()
        schema = GenerateRequest(instruction="i", prompt="p", seeds=(7,), json_schema='{"type": "object"}')
        with asking(server.base_url, extra={"top_k": 40}) as model:
            model.generate([writing("plain", 5, temperature=0, top_p=1, max_tokens=9, stop=("a", "b"))])
            model.generate([schema])
            model.score([scoring("c", questions=1)])
        plain, structured, score = server.bodies
        assert plain == {
            "model": MODEL,
            "messages": [{"role": "system", "content": "write"}, {"role": "user", "content": "plain"}],
            "temperature": 0.0,
            "top_p": 1.0,
            "max_tokens": 9,
            "stop": ["a", "b"],
            "seed": 5,
            "top_k": 40,
        }
        assert structured["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        }
        assert score["messages"][1]["content"] == "c\n\nquestion 0"
        assert (score["max_tokens"], score["temperature"], score["top_p"]) == (1, 1.0, 1.0)
        assert (score["logprobs"], score["top_logprobs"]) == (True, 20)

    def test_an_endpoint_may_be_spared_what_it_does_not_take(self) -> None:
        changed = {"system_role": False, "omit": ["seed", "temperature", "top_p"], "repetition_penalty": True}
        with serving(statuses={"": (400, {"message": "no"})}) as server, asking(server.base_url, **changed) as model:
            model.generate([writing("text", repetition_penalty=1.2)])
            model.score([scoring("context", questions=1)])
        for body in server.bodies:
            assert not {"seed", "temperature", "top_p"} & set(body)
            [message] = body["messages"]
            assert message["content"] in ("write\n\ntext", "judge\n\ncontext\n\nquestion 0")
        assert [body.get("repetition_penalty") for body in server.bodies] == [1.2, None]
        with serving(statuses={"": (400, {"message": "no"})}) as server:
            with asking(server.base_url, max_tokens_field="max_completion_tokens") as model:
                model.generate([writing("text", max_tokens=33)])
            assert server.bodies[0]["max_completion_tokens"] == 33
            assert "max_tokens" not in server.bodies[0]

    def test_a_penalty_that_the_endpoint_does_not_take_is_refused(self, server: ScriptedServer) -> None:
        with (
            asking(server.base_url) as model,
            pytest.raises(ConfigError, match=r"repetition_penalty 1.2 .*set it to 1"),
        ):
            model.generate([writing("text", repetition_penalty=1.2)])


class TestReasoning:
    THINKING = (
        {"content": None, "reasoning_content": "It is asked for."},
        {"content": "", "reasoning": "It is asked for."},
        {"content": "<think>It is asked for."},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "It is asked for."}]}]},
    )

    @pytest.mark.parametrize("message", THINKING)
    def test_it_is_never_part_of_the_text(self, message: dict[str, Any]) -> None:
        answer = {**message, "content": "An answer."} if not message["content"] else message
        if isinstance(message["content"], str) and message["content"]:
            answer = {"content": f"{message['content']}</think>\n\nAn answer."}
        elif isinstance(message["content"], list):
            answer = {"content": [*message["content"], {"type": "text", "text": "An answer."}]}
        messages = {"CUT": message, "WHOLE": answer}
        with serving(messages=messages, finishes={"CUT": "length"}) as server, asking(server.base_url) as model:
            cut, whole = (c.candidates[0] for c in model.generate([writing("CUT"), writing("WHOLE")]))
        assert (cut.text, cut.reasoning, cut.finish) == ("", "It is asked for.", "length")
        assert (whole.text, whole.reasoning) == ("An answer.", "It is asked for.")

    def test_most_answers_cut_off_before_they_begin_are_warned_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        messages = {"CUT": {"content": None, "reasoning": "Hm"}}
        with serving(messages=messages, finishes={"CUT": "length"}) as server, asking(server.base_url) as model:
            model.generate([writing("fine")] * 4)  # before, since answers to one call come in any order
            model.generate([writing("CUT")] * 4)
            assert "max_tokens" not in caplog.text
            model.generate([writing("CUT")] * 10)
        [warning] = [record.getMessage() for record in caplog.records if "max_tokens" in record.getMessage()]
        assert "raise the sampling's max_tokens: the model thinks first" in warning


class TestScoresWithoutLogprobs:
    def test_a_written_score_is_the_likelier_answer(self, server: ScriptedServer) -> None:
        requests = [scoring(f"context {i}") for i in range(6)]
        true = server.model.score(requests)
        with serving(logprobs=False, blanks=("\n",)) as mute, asking(mute.base_url, scores="written") as model:
            found = model.score(requests)
            assert model.take_usage()["written_answers"] == 18 == len(mute.bodies)
            assert {body["temperature"] for body in mute.bodies} == {0}
        for scores, wanted in zip(found, true, strict=True):
            for line, likely in zip(scores.logprobs, wanted.logprobs, strict=True):
                best = likely.index(max(likely))
                assert math.exp(line[best]) == pytest.approx(1)
                assert math.exp(line[1 - best]) == pytest.approx(0, abs=1e-9)

    def test_votes_are_shares_of_sampled_answers(self) -> None:
        with serving(logprobs=False) as mute, asking(mute.base_url, scores="votes", votes=8) as model:
            [scores] = model.score([scoring("context", questions=6)])
            assert len(mute.bodies) == 48
            assert sorted({body["seed"] for body in mute.bodies}) == list(range(8))
        shares = [[round(8 * math.exp(value)) for value in line] for line in scores.logprobs]
        assert all(yes + no == 8 for yes, no in shares)
        assert any(0 < yes < 8 for yes, _ in shares)

    def test_what_is_no_answer_is_told(self) -> None:
        messages = {"ODD": {"content": "Perhaps."}, "CUT": {"content": None, "reasoning": "Hm"}}
        with (
            serving(logprobs=False, messages=messages, finishes={"CUT": "length"}) as mute,
            asking(mute.base_url, scores="written") as model,
        ):
            odd, cut = model.score([scoring("ODD"), scoring("CUT")])
        assert odd.error == "none of Yes, No is among the model's answers: 'Perhaps.'"
        assert "cut off at 16 tokens before it begins" in (cut.error or "")
        assert "{answer_tokens: 2000}" in (cut.error or "")

    def test_thinking_is_not_judged(self) -> None:
        message = {"content": "<think>No, no... Yes? No!</think> Yes"}
        with serving(logprobs=False, messages={"T": message}) as mute, asking(mute.base_url, scores="written") as model:
            [scores] = model.score([scoring("T", questions=1)])
        assert scores.logprobs[0][0] == 0


class TestRowErrors:
    def test_each_stays_with_its_row(self) -> None:
        statuses = {
            "REFUSED": (400, {"message": "cannot be read", "param": "messages"}),
            "UNPROCESSABLE": (422, {"message": "neither"}),
        }
        with (
            serving(statuses=statuses, finishes={"FILTERED": "content_filter"}) as server,
            asking(server.base_url) as model,
        ):
            prompts = ["fine", f"a {OVERFLOW} prompt here", "REFUSED", "UNPROCESSABLE", "FILTERED", "fine again"]
            written = model.generate([writing(prompt, 1, 2) for prompt in prompts])
            scored = model.score([scoring(prompt) for prompt in prompts])
            assert model.take_usage()["retries"] == 0
        for results in (written, scored):
            errors = [result.error or "" for result in results]
            assert [bool(error) for error in errors] == [False, True, True, True, True, False]
            assert "does not fit" in errors[1]
            assert "maximum context length is 100 tokens, your messages have" in errors[1]
            assert "refuses the request (400: cannot be read" in errors[2]
            assert "422: neither" in errors[3]
            assert "finish reason 'content_filter'" in errors[4]
            assert not any(KEY in error for error in errors)
        assert [len(completion.candidates) for completion in written] == [2, 0, 0, 0, 0, 2]
        assert [len(scores.logprobs) for scores in scored] == [3, 0, 0, 0, 0, 3]

    def test_a_refusal_is_quoted(self) -> None:
        message = {"role": "assistant", "content": None, "refusal": "I would rather not. " * 100}
        with serving(changes={"message": message}) as server, asking(server.base_url) as model:
            [completion] = model.generate([writing("text")])
        assert "the model refused: I would rather not." in (completion.error or "")
        assert len(completion.error or "") < 400

    def test_a_prompt_beyond_max_context_is_never_taken_as_answered(self, server: ScriptedServer) -> None:
        with asking(server.base_url, max_context=20) as model:
            fits, long = model.generate([writing("a b c", max_tokens=16), writing("a b c d", max_tokens=16)])
            assert fits.error is None
            assert long.error == "the prompt of 5 tokens with max_tokens 16 exceeds max_context 20"

    def test_retries_that_are_spent_cost_the_row_alone(self) -> None:
        statuses = {"DOWN": (503, {"message": "overloaded"})}
        with serving(statuses=statuses) as server, asking(server.base_url, retries=2) as model:
            down, fine = model.generate([writing("DOWN"), writing("fine")])
            assert fine.error is None
            assert "no answer in 3 tries, the last: 503: overloaded" in (down.error or "")
            assert KEY not in (down.error or "")
            assert model.take_usage()["requests"] == 4


class Echo(BaseModel):
    prompts: int = 1


def echo(rows: pl.DataFrame, arguments: Echo, model: LanguageModel) -> Output:  # noqa: ARG001  # a stage function has them all
    """Ask about each word; words that cannot be answered go aside."""
    completions = model.generate([writing(word, max_tokens=8) for word in rows["word"]])
    answered = list(zip(rows.iter_rows(named=True), completions, strict=True))
    return Output(
        rows=pl.DataFrame(
            [{"row_id": row["row_id"], "word": c.candidates[0].text} for row, c in answered if c.error is None],
            schema={"row_id": pl.String, "word": pl.String},
        ),
        quarantined=quarantined_frame([quarantined(row, "model", c.error) for row, c in answered if c.error]),
        tokens_in=sum(completion.tokens_in for completion in completions),
    )


def echo_stage(model: ModelSpec, *words: str) -> Stage:
    contract = Contract(columns={"word": pl.String()})
    source = replace(words_stage(*words), contract=contract)
    return Stage(
        name="echo",
        function=echo,
        arguments=Echo(),
        contract=contract,
        inputs=(source,),
        model=model,
        part_rows=3,
    )


def made(store: Store, stage: Stage) -> Any:
    loom = runner(store)
    source, _ = loom.run(stage.inputs[0], [], [])
    try:
        return loom.run(stage, [source.ref], [])[0]
    finally:
        loom.pool.close()


class TestStage:
    def test_rows_without_answer_are_put_aside_and_the_key_is_nowhere(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        statuses = {"DOWN": (500, {"message": "broken"}), "ODD": (400, {"message": "not this"})}
        words = ["a", "b", "DOWN", "c", "ODD", f"{OVERFLOW} one", "d", "e"]
        with serving(statuses=statuses) as server:
            manifest = made(Store(tmp_path), echo_stage(spec_of(server.base_url, retries=1), *words))
        assert (manifest.count("rows"), manifest.quarantined_by) == (5, {"model": 3})
        reasons = Store(tmp_path).scan(manifest.ref, "quarantined").collect()["reason"].to_list()
        assert [reason.split(": ")[0] for reason in reasons] == [
            "the endpoint gave no answer in 2 tries, the last",
            "the endpoint refuses the request (400",
            "the prompt does not fit the endpoint's context",
        ]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(path.name == "manifest.json" and b"base_url" in path.read_bytes() for path in files)
        assert not [path for path in files if KEY.encode() in path.read_bytes()]
        out, err = capfd.readouterr()
        assert "HTTP" in caplog.text
        assert KEY not in caplog.text + out + err

    @pytest.mark.parametrize("wrong", ["sk-wrong-9876543210fedcba"])
    def test_a_refused_key_stops_the_stage_and_is_not_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv(VARIABLE, wrong)
        with serving() as server:
            spec = spec_of(server.base_url)
            with pytest.raises(ModelError, match=r"refuses the key in SCRIPTED_KEY \(401\)") as caught:
                made(Store(tmp_path), echo_stage(spec, "a", "b"))
        assert len(server.bodies) <= 3
        told = "".join(repr(error) for error in _chain(caught.value)) + str(caught.value) + caplog.text
        assert wrong not in told
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and wrong.encode() in path.read_bytes()]

    @pytest.mark.parametrize(
        ("options", "same"),
        [
            ({"concurrency": 3, "retries": 1, "requests_per_minute": 5, "tokens_per_minute": 9}, True),
            ({"timeout_s": 1.0, "backoff_cap_s": 1.0, "price_in": 1.0, "price_out": 2.0, "currency": "EUR"}, True),
            ({"key_variable": "OTHER_KEY"}, True),
            ({"base_url": "https://api.example.com/v1/"}, True),
            ({"top_logprobs": 20}, True),
            ({"base_url": "https://other.example.com/v1"}, False),
            ({"top_logprobs": 5}, False),
            ({"extra": {"top_k": 1}}, False),
            ({"omit": ["seed"]}, False),
            ({"max_context": 100}, False),
        ],
    )
    def test_only_what_changes_answers_changes_the_key(self, options: dict[str, Any], same: bool) -> None:
        def key_of(**stated: Any) -> str:
            model = spec_of(**{"base_url": "https://api.example.com/v1", **stated})
            return stage_key(key_fields("toy", echo_stage(model, "a"), inputs=["x"], sides=[]))

        assert (key_of(**options) == key_of()) is same


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
