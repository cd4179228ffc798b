from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai_toys import VARIABLE, spec_of
from scripted_server import KEY, MODEL, serving
from test_openai_engine import echo_stage

from normloom.cli.machine.endpoints import probed
from normloom.core.errors import ConfigError, ModelError
from normloom.models import GenerateRequest, ModelSpec, Sampling
from normloom.models.openai.batch import _settle
from normloom.models.openai.engine import OpenaiModel
from normloom.models.openai.memory import recall
from normloom.models.openai.probe import _takes_json
from normloom.models.openai.replies.failures import FieldRefusedError
from normloom.models.openai.replies.reply import Reply
from normloom.models.openai.replies.structured import json_within
from normloom.planning.keys import key_fields
from normloom.steps.graph import stages_of, with_models
from normloom.workers.resources import Resources


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("NORMLOOM_CACHE", str(tmp_path / "cache"))


def decided(spec: ModelSpec, *, resources: Resources | None = None) -> tuple[ModelSpec, list[str]]:
    """Return the model as a build would use it, and what is said of it."""
    said: list[str] = []
    [end] = probed([echo_stage(spec)], stages={"echo"}, resources=resources or Resources(), say=said.append)
    assert end.model is not None
    return end.model, said


def asked(prompt: str, schema: str | None = None) -> GenerateRequest:
    sampling = Sampling(max_tokens=40)
    return GenerateRequest(instruction="Be brief.", prompt=prompt, seeds=(7,), sampling=sampling, json_schema=schema)


class TestScores:
    def test_log_probabilities_and_json_are_found_by_a_request_each(self) -> None:
        with serving() as server:
            spec = spec_of(server.base_url)
            found, [said] = decided(spec)
            body, asked_json = server.bodies
        assert asked_json["response_format"]["type"] == "json_schema"
        assert "logprobs" not in asked_json
        assert found == recall(found) == spec
        assert {"seed", "temperature", "top_p", "logprobs", "top_logprobs"} <= body.keys()
        assert "asked 2 times" in said
        assert "JSON" not in said
        assert "log-probabilities" in said

    @pytest.mark.parametrize(
        ("settings", "requests"),
        [
            ({"logprobs": False}, 2),
            ({"logprobs": False, "refuses": {"logprobs": "logprobs is not supported"}}, 3),
            ({"answers": ("Sure", "Nope")}, 2),  # lists answers, but not those asked for: it thinks, say
        ],
    )
    def test_without_them_scores_are_written(self, settings: Mapping[str, Any], requests: int) -> None:
        with serving(**settings) as server:
            spec = spec_of(server.base_url)
            found, [said] = decided(spec)
            assert len(server.bodies) == requests
        assert found.options["scores"] == "written"
        assert "each score is one written answer" in said
        assert recall(spec) == found  # the next plan asks nobody
        before, known = (key_fields("s", echo_stage(one), inputs=[], sides=[])["model"] for one in (spec, found))
        assert before["options"] != known["options"]
        assert '"scores": "written"' in known["options"]

    def test_one_that_comes_to_list_them_is_found_again(self) -> None:
        with serving(logprobs=False) as server:
            spec = spec_of(server.base_url)
            decided(spec)
            server.logprobs = True
            assert decided(spec)[0] == recall(spec) == spec

    @pytest.mark.parametrize(("scores", "said"), [("votes", "share of 3 sampled"), ("written", "one written answer")])
    def test_a_way_that_is_set_is_kept(self, scores: str, said: str) -> None:
        with serving() as server:
            spec = spec_of(server.base_url, scores=scores, votes=3)
            found, [told] = decided(spec)
            assert "logprobs" not in server.bodies[0]
        assert found == spec
        assert said in told

    def test_log_probabilities_that_are_asked_for_must_be_there(self) -> None:
        with serving(logprobs=False) as server:
            with pytest.raises(ConfigError, match=r"lists no log-probabilities.*\{scores: written\}"):
                decided(spec_of(server.base_url, scores="logprobs"))
            server.refuses = {"top_logprobs": "top_logprobs must be at most 5"}
            with pytest.raises(ConfigError, match=r"does not take 'top_logprobs'.*or top_logprobs to what it gives"):
                decided(spec_of(server.base_url, scores="logprobs"))


class TestLeftOut:
    def test_an_endpoint_without_seeds_is_asked_without_them(self) -> None:
        with serving(refuses={"seed": "seed: unknown"}) as server:
            spec = spec_of(server.base_url, omit=["stop"])
            found, [said] = decided(spec)
            assert ["seed" in body for body in server.bodies] == [True, False, False]
            with closing(OpenaiModel(found)) as model:
                [answer] = model.generate([asked("Hi")])
        assert answer.candidates[0].text
        assert found.options["omit"] == ["seed", "stop"]
        assert "it takes no seeds, so what is drawn cannot be drawn again" in said
        assert recall(spec) == found
        assert key_fields("s", echo_stage(spec), inputs=[], sides=[]) != key_fields(
            "s", echo_stage(found), inputs=[], sides=[]
        )

    @pytest.mark.parametrize(
        "settings",
        [{"refuses": {"response_format": "response_format is not supported"}}, {"json": None, "logprobs": False}],
    )
    def test_json_is_asked_for_in_words_if_schemas_are_refused_or_passed_over(
        self, settings: Mapping[str, Any]
    ) -> None:
        answer = {"content": 'Here it is:\n```json\n{"polite": true}\n```\nHope this helps'}
        with serving(**settings, messages={"Rate": answer}) as server:
            spec = spec_of(server.base_url)
            found, [said] = decided(spec)
            schema = '{"type": "object", "properties": {"polite": {"type": "boolean"}}}'
            request = asked("Rate this", schema)
            with closing(OpenaiModel(found)) as model:
                [completion] = model.generate([request])
            sent = server.bodies[-1]
        assert found.options["omit"] == ["response_format"]
        assert "it takes no JSON schema, so JSON is asked for in words" in said
        assert "response_format" not in sent
        assert sent["messages"][0]["content"].startswith("Be brief.")
        assert sent["messages"][0]["content"].endswith(schema)
        assert completion.candidates[0].text == '{"polite": true}'

    def test_an_answer_that_is_cut_off_tells_nothing_against_json(self) -> None:
        with serving(json=None, finishes={"": "length"}) as server:
            spec = spec_of(server.base_url)
            assert decided(spec)[0] == spec

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ('{"a": [1, 2]} and so on', '{"a": [1, 2]}'),
            ("```\n[1, {}]\n```", "[1, {}]"),
            ('I think {maybe} it is {"a": {"b": "}"}}.', '{"a": {"b": "}"}}'),
            ("no JSON at all", "no JSON at all"),
            ("", ""),
        ],
    )
    def test_json_is_read_from_what_is_around_it(self, text: str, found: str) -> None:
        assert json_within(text) == found


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "options", "message"),
        [
            ({"key": "sk-another-0123456789"}, {}, r"refuses the key in SCRIPTED_KEY \(401\)"),
            ({"statuses": {"": (403, {"message": "not yours"})}}, {}, r"refuses the key in SCRIPTED_KEY \(403"),
            ({}, {"key_variable": "NO_SUCH_KEY"}, "environment variable NO_SUCH_KEY is not set"),
            ({}, {"model": "other"}, "404"),
            ({"refuses": {"top_p": "'top_p' is fixed"}}, {}, r"options: \{omit: \[top_p\]\}"),
        ],
    )
    def test_nothing_starts(self, settings: Mapping[str, Any], options: Mapping[str, Any], message: str) -> None:
        with serving(**settings) as server, pytest.raises(ConfigError, match=message) as caught:
            decided(spec_of(server.base_url, **options))
        assert len(server.bodies) <= 1, server.bodies
        assert KEY not in str(caught.value)

    def test_nobody_at_the_address(self) -> None:
        with serving() as server:
            gone = server.base_url
        with pytest.raises(ConfigError, match="cannot be reached"):
            decided(spec_of(gone))

    def test_an_outage_is_no_wrong_setting(self) -> None:
        statuses = {"": (503, {"message": "overloaded"})}
        with serving(statuses=statuses) as server, pytest.raises(ModelError, match=r"503: overloaded.*try again later"):
            decided(spec_of(server.base_url))
        assert len(server.bodies) == 3

    def test_one_question_that_is_refused_says_nothing_of_others(self) -> None:
        with serving(statuses={"": (400, {"message": "raise the limit"})}) as server:
            spec = spec_of(server.base_url)
            assert decided(spec)[0] == spec

    def test_a_key_that_only_the_cluster_has_is_not_missed_here(self) -> None:
        spec = spec_of("http://127.0.0.1:9/v1", key_variable="NO_SUCH_KEY")
        found, [said] = decided(spec, resources=Resources(address="ray://head:10001"))
        assert found == spec
        assert "NO_SUCH_KEY is not set here" in said


def test_no_key_is_told_or_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(logprobs=False) as server:
        _, said = decided(spec_of(server.base_url))
    assert KEY not in caplog.text + "".join(said)
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text() + path.name]


def test_other_models_of_a_flow_stay_as_they_are() -> None:
    end = echo_stage(ModelSpec(engine="scripted", model=MODEL))
    assert with_models([end], recall) == [end]
    [changed] = with_models([end], lambda spec: spec.model_copy(update={"model": "other"}))
    assert [stage.name for stage in stages_of(changed)] == [stage.name for stage in stages_of(end)]
    assert changed.model == ModelSpec(engine="scripted", model="other")


def test_a_field_that_is_refused_with_a_schema_alone_is_no_word_against_schemas() -> None:
    said = "Unsupported parameter: 'temperature' with a schema"
    with (
        serving(refuses={"response_format": said}) as server,
        closing(OpenaiModel(spec_of(server.base_url))) as model,
        pytest.raises(FieldRefusedError),
    ):
        _takes_json(model)


def test_what_is_answered_after_its_batch_was_given_up_is_dropped() -> None:
    async def late() -> bool:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.cancel()
        _settle(future, ModelError("late"))
        return future.cancelled()

    assert asyncio.run(late())
