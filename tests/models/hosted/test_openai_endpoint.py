from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from fault_proxy import FAULTS, faulty
from openai_toys import VARIABLE, asking, scoring, spec_of, writing
from scripted_server import KEY, MODEL, ScriptedServer, serving

from normloom.core.errors import ConfigError, ModelError
from normloom.models import load_model
from normloom.models.openai.endpoint import OUTAGE
from normloom.models.requests.progress import listening


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


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
            ("garbage", "not a chat completion"),
            ("foreign", 'not a chat completion: {"choices": [{"text": "of another kind"}]}'),
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


class TestEndpointErrors:
    @pytest.mark.parametrize(
        ("statuses", "message"),
        [
            ({"": (403, {"message": "not your model"})}, r"refuses the key in SCRIPTED_KEY \(403: not your model"),
            ({"": (402, {"message": "empty"})}, r"the account cannot pay \(402: empty"),
            ({"": (429, {"message": "quota", "code": "insufficient_quota"})}, r"cannot pay \(429: quota"),
            (
                {"": (400, {"message": "unsupported", "param": "temperature"})},
                r"does not take 'temperature' as it is set \(400: unsupported.*omit: \[temperature\]",
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


OTHER_FIELD = {"max_tokens_field": "max_completion_tokens"}


class TestRefusedFields:
    @pytest.mark.parametrize(
        ("field", "said", "options", "cure"),
        [
            ("seed", "Unrecognized request argument supplied: seed", {}, "{omit: [seed]}"),
            ("temperature", "'temperature' does not support 0.7", {"omit": ["top_p"]}, "{omit: [top_p, temperature]}"),
            ("top_p", "'top_p' is not supported", {}, "{omit: [top_p]}"),
            ("stop", "Unsupported parameter: 'stop'", {}, "{omit: [stop]}"),
            ("max_tokens", "'max_tokens' is not supported", {}, "{max_tokens_field: max_completion_tokens}"),
            ("max_completion_tokens", "max_completion_tokens: extra", OTHER_FIELD, "{max_tokens_field: max_tokens}"),
            ("response_format", "This response_format type is unavailable now", {}, "{omit: [response_format]}"),
            ("top_k", "unknown field `top_k`", {"extra": {"top_k": 3}}, "take 'top_k' out of the model's options"),
            ("repetition_penalty", "repetition_penalty?", {"repetition_penalty": True}, "repetition_penalty: 1"),
        ],
    )
    def test_the_message_names_the_cure(self, field: str, said: str, options: dict[str, Any], cure: str) -> None:
        request = replace(
            writing("text", stop=("zz",), repetition_penalty=1.1 if field == "repetition_penalty" else 1),
            json_schema='{"type": "object"}',
        )
        with (
            serving(refuses={field: said}) as server,
            asking(server.base_url, **options) as model,
            pytest.raises(ModelError, match=f"does not take '{field}'") as caught,
        ):
            model.generate([request])
        assert cure in str(caught.value)
        assert len(server.bodies) == 1

    @pytest.mark.parametrize("field", ["logprobs", "top_logprobs"])
    def test_of_scores(self, field: str) -> None:
        with (
            serving(refuses={field: f"{field} is not supported"}) as server,
            asking(server.base_url) as model,
            pytest.raises(ModelError, match=r"\{scores: written\}"),
        ):
            model.score([scoring("context")])

    def test_a_list_of_details_and_a_system_role(self) -> None:
        details = [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
        statuses = {
            "LISTED": (422, {"message": None, "detail": details}),
            "ROLE": (400, {"message": "Conversation roles must alternate: system role not supported"}),
        }
        with serving(statuses=statuses) as server, asking(server.base_url) as model:
            with pytest.raises(ModelError, match=r"does not take 'seed'.*omit: \[seed\]"):
                model.generate([writing("LISTED")])
            with pytest.raises(ModelError, match=r"system_role: false"):
                model.generate([writing("ROLE")])

    def test_stop_strings_are_cut_here_where_the_endpoint_does_not_take_them(self, server: ScriptedServer) -> None:
        requests = [writing(f"prompt {i}", stop=("e",)) for i in range(3)]
        with asking(server.base_url, omit=["stop"]) as model:
            found = [completion.candidates[0] for completion in model.generate(requests)]
            whole = [
                completion.candidates[0] for completion in model.generate([writing(f"prompt {i}") for i in range(3)])
            ]
        assert [(one.text, one.finish) for one in found] == [(one.text.partition("e")[0], "stop") for one in whole]


class TestErrorsInside:
    """Errors in an answer of status 200."""

    @pytest.mark.parametrize(
        ("told", "reason", "tries"),
        [
            ({"message": "upstream overloaded", "code": 502}, "502: upstream overloaded", 3),
            ({"message": "slow down", "type": "rate_limit_error"}, "429: slow down", 3),
            ({"message": "hiccup"}, "500: hiccup", 3),
            ("just words", "500: just words", 3),
            ({"message": "odd request", "type": "invalid_request_error"}, "refuses the request (400: odd request)", 1),
            ({"message": "prompt is too long: maximum context length is 9", "code": 400}, "does not fit", 1),
        ],
    )
    def test_each_has_its_class_and_its_reason(self, told: Any, reason: str, tries: int) -> None:
        with serving(inside={"BAD": told}) as server, asking(server.base_url, retries=2) as model:
            bad, fine = model.generate([writing("BAD"), writing("fine")])
            assert fine.error is None
            assert reason in (bad.error or "")
            assert len(server.bodies) == tries + 1

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ({"message": "no key", "code": "401"}, r"refuses the key in SCRIPTED_KEY \(401\)"),
            ({"message": "broke", "type": "insufficient_quota"}, "cannot pay"),
            ({"message": "'seed' is unknown", "code": 400}, r"omit: \[seed\]"),
        ],
    )
    def test_what_concerns_all_ends_the_work(self, told: Any, message: str) -> None:
        with (
            serving(inside={"": told}) as server,
            asking(server.base_url) as model,
            pytest.raises(ModelError, match=message),
        ):
            model.generate([writing("text")])

    def test_an_error_in_the_choice(self) -> None:
        changes = {"error": {"message": "provider went away", "code": 503}}
        with serving(changes=changes) as server, asking(server.base_url, retries=0) as model:
            [completion] = model.generate([writing("text")])
        assert "503: provider went away" in (completion.error or "")


def _interrupted() -> None:
    """Be interrupted while asking: what was not sent is not sent any more."""
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

    def test_a_wait_that_one_is_asked_for_holds_all(self) -> None:
        statuses = {"BUSY": (429, {"message": "later"})}
        with (
            serving(statuses=statuses, headers={"retry-after-ms": "700"}) as server,
            asking(server.base_url, retries=1, backoff_cap_s=5, concurrency=1) as model,
        ):
            model.generate([writing("BUSY"), writing("fine")])
            first, *others = server.arrivals
            assert len(others) == 2
            assert all(arrival - first >= 0.7 for arrival in others)

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
            "written_answers": 0,
            "prompt_tokens": read,
            "cached_tokens": 5,
            "cost": pytest.approx((2.5 * read + 10 * written) / 1_000_000),
        }
        assert set(again.values()) == {0}

    def test_progress_reaches_who_asked(self, server: ScriptedServer) -> None:
        heard: list[float] = []
        with asking(server.base_url) as model, listening(heard.append):
            model.generate([writing(f"text {i}") for i in range(4)])
        assert heard == [0.25, 0.5, 0.75, 1]

    def test_who_is_interrupted_asks_no_further(self) -> None:
        asker = multiprocessing.get_context("spawn").Process(target=_interrupted)  # a signal for a process of its own
        asker.start()
        asker.join(120)
        assert asker.exitcode == 0

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
            assert "was closed while in use" in caught[0]
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
            ({"extra": {"seed": 3}}, "seed may not be set here"),
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
        with pytest.raises(ConfigError, match="characters that keys cannot have") as caught:
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
