from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fault_proxy import FAULTS, faulty
from pydantic import BaseModel
from scripted_server import KEY, MODEL, OVERFLOW, ScriptedServer, serving
from toy import runner, words_stage

from normloom.contract import Contract
from normloom.errors import ConfigError, ModelError
from normloom.keys import key_fields, stage_key
from normloom.models import GenerateRequest, LanguageModel, ModelSpec, Sampling, ScoreRequest, load_model
from normloom.models.openai_endpoint import OUTAGE, _seconds_asked
from normloom.models.openai_engine import OpenaiModel
from normloom.models.protocol import Closing, Metered
from normloom.models.protocol import LanguageModel as Model
from normloom.stage import Output, Stage, quarantined, quarantined_frame
from normloom.store import Store

VARIABLE = "SCRIPTED_KEY"
HASTE = {"backoff_cap_s": 0.02, "timeout_s": 30.0}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


def spec_of(base_url: str, *, model: str = MODEL, **options: Any) -> ModelSpec:
    stated = {"base_url": base_url, "key_variable": VARIABLE, **HASTE, **options}
    return ModelSpec(engine="openai", model=model, options=stated)


@contextmanager
def asking(base_url: str, **options: Any) -> Iterator[OpenaiModel]:
    model = load_model(spec_of(base_url, **options))
    assert isinstance(model, OpenaiModel)
    try:
        yield model
    finally:
        model.close()


def scoring(context: str, questions: int = 3, answers: tuple[str, ...] = ("Yes", "No")) -> ScoreRequest:
    asked = tuple(f"question {k}" for k in range(questions))
    return ScoreRequest(instruction="judge", context=context, questions=asked, answers=answers)


def writing(prompt: str, *seeds: int, **sampling: Any) -> GenerateRequest:
    return GenerateRequest(instruction="write", prompt=prompt, seeds=seeds or (1,), sampling=Sampling(**sampling))


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

    def test_answers_are_matched_exactly_unless_a_leading_space_is_allowed(self, server: ScriptedServer) -> None:
        with asking(server.base_url) as model:
            [exact] = model.score([scoring("spelling")])
            [none] = model.score([scoring("spelling", answers=("yes", "no"))])
        with asking(server.base_url, leading_space=True) as model:
            [loose] = model.score([scoring("spelling")])
        assert none.logprobs == ()
        assert "none of yes, no is among the likeliest answers" in (none.error or "")
        assert "' Yes'" in (none.error or "")
        for strict, added in zip(exact.logprobs, loose.logprobs, strict=True):
            assert added[0] > strict[0]
            assert added[1] == strict[1]

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
        assert "the model refuses: I would rather not." in (completion.error or "")
        assert len(completion.error or "") < 400

    def test_a_prompt_beyond_max_context_is_never_taken_as_answered(self, server: ScriptedServer) -> None:
        with asking(server.base_url, max_context=20) as model:
            fits, long = model.generate([writing("a b c", max_tokens=16), writing("a b c d", max_tokens=16)])
            assert fits.error is None
            assert long.error == "the prompt of 5 tokens with max_tokens 16 passes max_context 20"

    def test_retries_that_are_spent_cost_the_row_alone(self) -> None:
        statuses = {"DOWN": (503, {"message": "overloaded"})}
        with serving(statuses=statuses) as server, asking(server.base_url, retries=2) as model:
            down, fine = model.generate([writing("DOWN"), writing("fine")])
            assert fine.error is None
            assert "no answer in 3 tries, the last: 503: overloaded" in (down.error or "")
            assert KEY not in (down.error or "")
            assert model.take_usage()["requests"] == 4


class TestFaults:
    def test_faults_cost_nothing_but_tries(self, server: ScriptedServer) -> None:
        texts = [writing(f"prompt {i}", 1, 2) for i in range(14)]
        questions = [scoring(f"context {i}") for i in range(5)]
        with faulty(server.base_url, every=3) as proxy, asking(proxy.base_url, timeout_s=2, retries=20) as model:
            assert [c.candidates for c in model.generate(texts)] == [c.candidates for c in server.model.generate(texts)]
            assert all(scores.error is None for scores in model.score(questions))
            usage = model.take_usage()
        assert set(proxy.done) == set(FAULTS)
        assert usage["requests"] == proxy.requests
        assert usage["retries"] == proxy.requests - 28 - 15
        assert usage["retries"] >= sum(proxy.done.values())

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("limited", "429: slow down"),
            ("broken", "500: out of order"),
            ("cut", "RemoteProtocolError"),
            ("half", "RemoteProtocolError"),
            ("garbage", "no chat completion"),
            ("foreign", 'no chat completion: {"choices": [{"text": "of another kind"}]}'),
            ("slow", "no answer within 0.5 s"),
        ],
    )
    def test_the_reason_is_told(self, server: ScriptedServer, fault: str, reason: str) -> None:
        with (
            faulty(server.base_url, every=1, faults=[fault]) as proxy,
            asking(proxy.base_url, retries=1, timeout_s=0.5 if fault == "slow" else 30) as model,
        ):
            [completion] = model.generate([writing("text")])
        assert reason in (completion.error or "")
        assert proxy.requests == 2

    def test_retry_after_is_waited_out_up_to_the_cap(self) -> None:
        statuses = {"BUSY": (429, {"message": "later"})}
        with serving(statuses=statuses, headers={"Retry-After": "1"}) as server:
            with asking(server.base_url, retries=1, backoff_cap_s=5) as model:
                model.generate([writing("BUSY")])
            first, second = server.arrivals
            assert second - first >= 1
            server.headers = {"Retry-After": "100000"}
            with asking(server.base_url, retries=1, backoff_cap_s=0.01) as model:
                assert model.generate([writing("BUSY")])[0].error  # and not in a day

    @pytest.mark.parametrize(("stated", "seconds"), [("7", 7), ("0.5", 0.5), ("soon", 0), ("", 0)])
    def test_retry_after_in_seconds(self, stated: str, seconds: float) -> None:
        assert _seconds_asked({"retry-after": stated}) == seconds

    def test_retry_after_as_a_date(self) -> None:
        then = datetime.now(UTC) + timedelta(hours=1)
        assert 3500 < _seconds_asked({"retry-after": format_datetime(then, usegmt=True)}) <= 3600
        assert _seconds_asked({}) == 0


class TestEndpointErrors:
    @pytest.mark.parametrize(
        ("statuses", "message"),
        [
            ({"": (403, {"message": "not your model"})}, r"refuses the key in SCRIPTED_KEY \(403: not your model"),
            ({"": (402, {"message": "empty"})}, r"the account cannot pay \(402: empty"),
            ({"": (429, {"message": "quota", "code": "insufficient_quota"})}, r"cannot pay \(429: quota"),
            (
                {"": (400, {"message": "unsupported", "param": "temperature"})},
                r"does not take 'temperature' as it is set \(400: unsupported",
            ),
        ],
    )
    def test_they_end_the_work_and_name_model_and_address(self, statuses: Any, message: str) -> None:
        with serving(statuses=statuses) as server, asking(server.base_url) as model:
            with pytest.raises(ModelError, match=message) as caught:
                model.generate([writing(f"text {i}") for i in range(50)])
            assert f"model {MODEL!r} at {server.base_url}" in str(caught.value)
            assert KEY not in repr(caught.value)
            assert model.take_usage()["retries"] == 0

    def test_an_unknown_model(self, server: ScriptedServer) -> None:
        with asking(server.base_url, model="other") as model, pytest.raises(ModelError, match=r"404: .*check the name"):
            model.score([scoring("context")])

    def test_a_model_without_log_probabilities(self) -> None:
        with (
            serving(changes={"logprobs": None}) as server,
            asking(server.base_url) as model,
            pytest.raises(ModelError, match="gives no log-probabilities"),
        ):
            model.score([scoring("context")])

    def test_nobody_at_the_address(self) -> None:
        with serving() as server:
            gone = server.base_url
        with asking(gone, retries=2) as model:
            with pytest.raises(ModelError, match=r"cannot be reached \(3 tries, the last: ConnectError.*base_url"):
                model.generate([writing("text")])
            assert model.take_usage()["retries"] == 2

    def test_a_name_that_is_none(self) -> None:
        with (
            asking("http://no-such-host.invalid/v1", retries=0) as model,
            pytest.raises(ModelError, match="cannot be reached"),
        ):
            model.generate([writing("text")])

    def test_an_outage_is_not_laid_on_the_rows(self) -> None:
        statuses = {"DOWN": (503, {"message": "overloaded"})}
        with serving(statuses=statuses) as server, asking(server.base_url, retries=0, concurrency=2) as model:
            assert all(c.error for c in model.generate([writing("DOWN")] * (OUTAGE - 1)))
            assert model.generate([writing("fine")])[0].error is None
            assert all(c.error for c in model.generate([writing("DOWN")] * (OUTAGE - 1)))
            with pytest.raises(ModelError, match=f"left the last {OUTAGE} requests unanswered"):
                model.generate([writing("DOWN")])


class TestLimits:
    def test_threads_share_the_concurrency(self) -> None:
        requests = [[writing(f"prompt {part} {i}", 1, 2) for i in range(8)] for part in range(4)]
        with serving(latency_s=0.02) as server, asking(server.base_url, concurrency=5) as model:
            with ThreadPoolExecutor(4) as pool:
                together = list(pool.map(model.generate, requests))
            assert server.peak == 5
            assert together == [
                [c.__class__(candidates=c.candidates, tokens_in=2 * c.tokens_in) for c in server.model.generate(part)]
                for part in requests
            ]

    def test_requests_a_minute_are_kept(self) -> None:
        with serving() as server, asking(server.base_url, requests_per_minute=1200) as model:
            model.generate([writing("first")])
            model.generate([writing(f"prompt {i}") for i in range(20)])
        spacing = 60 / 1200
        assert server.arrivals[-1] - server.arrivals[1] >= 19 * spacing / 2  # half, since arrivals may be late

    def test_tokens_a_minute_are_kept(self) -> None:
        with serving(options={"words": 50}) as server, asking(server.base_url, tokens_per_minute=60_000) as model:
            model.generate([writing("first", max_tokens=50)])
            for i in range(4):
                model.generate([writing(f"prompt {i}", *range(5), max_tokens=50)])
        used = sum(tokens_in + tokens_out for tokens_in, tokens_out in server.usage[1:-5])
        assert server.arrivals[-1] - server.arrivals[1] >= used / 1000 / 2

    def test_usage_is_counted_once(self, server: ScriptedServer) -> None:
        server.usage.clear()
        with asking(server.base_url, price_in=2.5, price_out=10) as model:
            model.generate([writing("text", 1, 2, 3)])
            model.score([scoring("context", questions=2)])
            usage, again = model.take_usage(), model.take_usage()
        read, written = (sum(counts) for counts in zip(*server.usage, strict=True))
        assert usage == {
            "requests": 5,
            "retries": 0,
            "prompt_tokens": read,
            "cached_tokens": 5,
            "cost": pytest.approx((2.5 * read + 10 * written) / 1_000_000),
        }
        assert set(again.values()) == {0}

    def test_who_is_interrupted_asks_no_further(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # polars puts one there that does not end a wait
        with serving(latency_s=0.05) as server, asking(server.base_url, concurrency=1) as model:
            main = threading.get_ident()

            def interrupt() -> None:
                while not server.arrivals:
                    time.sleep(0.01)
                signal.pthread_kill(main, signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                model.generate([writing(f"text {i}") for i in range(200)])
            thread.join()
            assert model.generate([writing("another")])[0].error is None  # would wait behind the others
            assert len(server.arrivals) < 200

    def test_closing_ends_what_is_under_way(self) -> None:
        with serving(latency_s=0.5) as server, asking(server.base_url) as model:
            caught: list[str] = []

            def ask() -> None:
                try:
                    model.generate([writing("text")])
                except ModelError as error:
                    caught.append(str(error))

            thread = threading.Thread(target=ask)
            thread.start()
            while not server.arrivals:
                thread.join(0.01)
            model.close()
            thread.join()
            assert len(caught) == 1
            assert "was closed while it was at work" in caught[0]
            with pytest.raises(ModelError, match="is closed"):
                model.generate([writing("text")])
            model.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"base_url": "api.example.com"}, "base_url: .*expected an address such as"),
            ({"base_url": "https://me:secret-word@api.example.com/v1"}, "without user, password or query"),
            ({"key_variable": "sk-secret-word"}, "key_variable"),
            ({"extra": {"seed": 3}}, "seed may not stand here"),
            ({"api_key": "secret-word"}, "api_key"),
            ({"concurrency": 0}, "concurrency"),
        ],
    )
    def test_wrong_ones_are_named_and_not_repeated(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            load_model(spec_of(**{"base_url": "http://127.0.0.1/v1", **options}))
        assert "secret-word" not in str(caught.value)

    def test_a_missing_key_names_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE)
        with pytest.raises(ConfigError, match=r"environment variable SCRIPTED_KEY is not set.*key_variable: null"):
            load_model(spec_of("http://127.0.0.1/v1"))

    def test_a_key_that_cannot_be_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "sk-ké-0123456789")
        with pytest.raises(ConfigError, match="characters that no key has") as caught:
            load_model(spec_of("http://127.0.0.1/v1"))
        assert "sk-k" not in str(caught.value)

    def test_a_key_among_the_options_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="its options hold the key itself") as caught:
            load_model(spec_of("http://127.0.0.1/v1", extra={"token": KEY}))
        assert KEY not in str(caught.value)

    def test_an_endpoint_without_keys(self) -> None:
        with serving(key=None) as server, asking(server.base_url, key_variable=None) as model:
            assert model.generate([writing("text")])[0].error is None
        with (
            serving() as server,
            asking(server.base_url, key_variable=None) as model,
            pytest.raises(ModelError, match=r"asks for a key \(401\)"),
        ):
            model.generate([writing("text")])


class Echo(BaseModel):
    prompts: int = 1


def echo(rows: pl.DataFrame, arguments: Echo, model: Model) -> Output:  # noqa: ARG001
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
