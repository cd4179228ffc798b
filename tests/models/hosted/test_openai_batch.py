"""Requests sent as batches: a build ends while they are out, and the next one collects their answers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai_toys import VARIABLE, asking, scoring, spec_of, writing
from scripted_server import KEY, ScriptedServer, serving

from normloom.core.errors import ModelError, WaitingError
from normloom.models.openai.batch import MARK
from normloom.models.openai.probe import probe
from normloom.planning.keys import key_fields, stage_key
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


REQUESTS = [writing(f"prompt {number}", 1, 2, max_tokens=20) for number in range(3)]


def test_answers_are_those_of_single_requests(server: ScriptedServer) -> None:
    with asking(server.base_url) as model:
        direct = model.generate(REQUESTS)
    server.bodies.clear()
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError, match=r"batch_0 of toy is in prog"):
        model.generate(REQUESTS)
    assert server.bodies == []
    server.batches.ends = "completed"
    with asking(server.base_url, batch=True) as model:
        assert model.generate(REQUESTS) == direct
        usage = model.take_usage()
    assert (usage["requests"], usage["prompt_tokens"]) == (6, sum(one.tokens_in for one in direct))
    assert len(server.batches.sent) == 1
    assert list(server.batches.sent[0]["metadata"]) == [MARK]


def test_nothing_is_sent_twice_while_a_batch_is_out(server: ScriptedServer) -> None:
    for _ in range(3):
        with asking(server.base_url, batch=True) as model:
            for _ in range(2):
                with pytest.raises(WaitingError):
                    model.generate(REQUESTS)
    assert len(server.batches.sent) == 1


def test_scores_are_those_of_single_requests(server: ScriptedServer) -> None:
    requests = [scoring(f"context {number}") for number in range(3)]
    with asking(server.base_url) as model:
        direct = model.score(requests)
    with asking(server.base_url, batch=True) as model:
        with pytest.raises(WaitingError):
            model.score(requests)
        server.batches.ends = "completed"
    with asking(server.base_url, batch=True) as model:
        assert [one.logprobs for one in model.score(requests)] == [one.logprobs for one in direct]
    assert len(server.batches.sent) == 1


def test_requests_that_expired_are_sent_again_and_no_others(server: ScriptedServer) -> None:
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    server.batches.ends, server.batches.expires = "expired", 2
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError, match="batch_1"):
        model.generate(REQUESTS)
    assert len(server.batches.files[server.batches.sent[1]["input_file_id"]].splitlines()) == 2
    server.batches.ends, server.batches.expires = "completed", 0
    with asking(server.base_url, batch=True) as model:
        assert all(len(completion.candidates) == 2 for completion in model.generate(REQUESTS))


@pytest.mark.parametrize("lost", ["failed", "gone"])
def test_a_batch_without_answers_is_sent_again(server: ScriptedServer, lost: str) -> None:
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    server.batches.ends, server.batches.kept = ("failed", True) if lost == "failed" else ("completed", False)
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError, match="batch_1"):
        model.generate(REQUESTS)


def test_a_request_that_is_refused_is_its_row_s_fault(server: ScriptedServer) -> None:
    server.statuses = {"prompt 1": (400, {"message": "no"})}
    server.batches.ends = "completed"
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    with asking(server.base_url, batch=True) as model:
        errors = [completion.error for completion in model.generate(REQUESTS)]
    assert [bool(error) for error in errors] == [False, True, False]


def test_what_the_account_could_not_pay_is_sent_again(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    server.statuses = {"prompt 1": (402, {"message": "no credit", "code": "insufficient_quota"})}
    server.batches.ends = "completed"
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError, match="batch_1"):
        model.generate(REQUESTS)
    assert "2 requests are sent again: " in caplog.text
    assert "the account cannot pay" in caplog.text
    server.statuses = {}
    with asking(server.base_url, batch=True) as model:
        assert [bool(completion.error) for completion in model.generate(REQUESTS)] == [False, False, False]


def test_a_field_that_a_batch_refuses_is_named(server: ScriptedServer) -> None:
    server.refuses = {"seed": "'seed' is unknown"}
    server.batches.ends = "completed"
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    with (
        asking(server.base_url, batch=True) as model,
        pytest.raises(ModelError, match=r"does not take 'seed' as it is set .*omit: \[seed\]"),
    ):
        model.generate(REQUESTS)


def test_a_batch_whose_answers_are_not_kept_any_more_is_not_asked_about(server: ScriptedServer) -> None:
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    old = {**server.batches.sent[0], "id": "batch_old", "created_at": 0, "status": "completed"}
    server.batches.sent.insert(0, {**old, "output_file_id": "file-gone"})
    server.batches.ends = "completed"
    with asking(server.base_url, batch=True, retries=0) as model:
        assert all(len(completion.candidates) == 2 for completion in model.generate(REQUESTS))


def test_what_was_refused_once_stays_refused(server: ScriptedServer) -> None:
    """The answer to the second batch counts, also if the first one says that the request may be sent again."""
    server.batches.ends, server.batches.expires = "completed", 6
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError, match="batch_0"):
        model.generate(REQUESTS)
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError, match="batch_1"):
        model.generate(REQUESTS)
    server.batches.expires = 0
    server.statuses = {"prompt 1": (400, {"message": "no"})}
    with asking(server.base_url, batch=True) as model:
        errors = [completion.error for completion in model.generate(REQUESTS)]
    assert [bool(error) for error in errors] == [False, True, False]
    assert len(server.batches.sent) == 2


def test_two_calls_at_once_are_two_batches(server: ScriptedServer) -> None:
    with asking(server.base_url, batch=True) as model, ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(model.generate, requests) for requests in (REQUESTS[:1], REQUESTS[1:])]
        assert all(isinstance(call.exception(), WaitingError) for call in calls)
    sent = [len(server.batches.files[batch["input_file_id"]].splitlines()) for batch in server.batches.sent]
    assert sorted(sent) == [2, 4]


def test_an_endpoint_without_batches_says_so(server: ScriptedServer) -> None:
    with (
        asking(server.base_url.replace("/v1", "/none"), batch=True) as model,
        pytest.raises(ModelError, match=r"does not support batches \(404\); set the model's options: \{batch: false\}"),
    ):
        model.generate(REQUESTS)


def test_a_batch_that_could_not_be_found_again_is_cancelled(server: ScriptedServer) -> None:
    server.batches.forgets = True
    with (
        asking(server.base_url, batch=True) as model,
        pytest.raises(ModelError, match=r"does not keep the metadata of batches.*batch_0 was cancelled.*batch: false"),
    ):
        model.generate(REQUESTS)
    assert [batch["status"] for batch in server.batches.sent] == ["cancelled"]


def test_an_outage_while_a_batch_is_made_is_waited_for(server: ScriptedServer) -> None:
    server.batches.refusals = [(503, "later"), (429, "slowly")]
    with asking(server.base_url, batch=True, retries=2, backoff_cap_s=0.01) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS)
    assert len(server.batches.sent) == 1
    server.batches.refusals = [(503, "later")] * 2
    with (
        asking(server.base_url, batch=True, retries=1, backoff_cap_s=0.01) as model,
        pytest.raises(ModelError, match=r"does not answer about batches \(2 tries, the last: .*later"),
    ):
        model.generate(REQUESTS[:1])


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, r"refuses a batch: .*too many lines"), (401, r"refuses the key"), (404, "does not support batches")],
)
def test_a_batch_that_is_refused_is_no_row_s_fault(server: ScriptedServer, status: int, said: str) -> None:
    server.batches.refusals = [(status, "too many lines")]
    with asking(server.base_url, batch=True) as model, pytest.raises(ModelError, match=said):
        model.generate(REQUESTS)
    assert not server.batches.sent


def test_nobody_answers_about_batches(server: ScriptedServer) -> None:
    port = server.base_url.rpartition(":")[2].partition("/")[0]
    silent = server.base_url.replace(port, "9")
    with (
        asking(silent, batch=True, retries=0) as model,
        pytest.raises(ModelError, match=r"does not answer about batches \(1 tries, the last: ConnectError"),
    ):
        model.generate(REQUESTS)


def test_an_answer_that_is_no_completion_is_asked_again(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.batches.odd = True
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS[:1])
    server.batches.ends = "completed"
    with asking(server.base_url, batch=True) as model, pytest.raises(WaitingError):
        model.generate(REQUESTS[:1])
    assert "2 requests are sent again: the answer is not a chat completion" in caplog.text
    server.batches.odd = False
    with asking(server.base_url, batch=True) as model:
        assert model.generate(REQUESTS[:1])[0].error is None
    assert len(server.batches.sent) == 2


def test_a_model_is_tried_without_a_batch(server: ScriptedServer) -> None:
    assert probe(spec_of(server.base_url, batch=True)).spec.options["batch"] is True
    assert server.batches.sent == []


def test_a_stage_sends_all_its_parts_and_waits_and_the_next_build_makes_it(
    server: ScriptedServer, tmp_path: Path
) -> None:
    store, words = Store(tmp_path), words_stage(*"abcdefgh")
    first, _ = runner(store).run(words, [], [])
    stage = echo_stage(words, model=spec_of(server.base_url, batch=True), part_rows=3)
    with pytest.raises(WaitingError, match=r"stage 'echo' waits for 3 of 3 parts: batch batch_2 of toy is in progress"):
        runner(store).run(stage, [first.ref], [])
    assert len(server.batches.sent) == 3
    server.batches.ends = "completed"
    manifest, reused = runner(store).run(stage, [first.ref], [])
    assert (manifest.count("rows"), reused, len(server.batches.sent)) == (8, False, 3)
    alone = echo_stage(words, model=spec_of(server.base_url), part_rows=3)
    fields = key_fields("toy", alone, inputs=[first.content], sides=[])
    assert manifest.key == stage_key(fields)  # how it was asked changes no key
