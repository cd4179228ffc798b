from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from openai_toys import VARIABLE, spec_of
from scripted_server import KEY, MODEL, serving
from test_openai_engine import echo_stage

from normloom.cli.endpoints import probed
from normloom.core.errors import ConfigError, ModelError
from normloom.models import ModelSpec
from normloom.models.openai.memory import recall
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


class TestScores:
    def test_log_probabilities_are_found_by_one_request(self) -> None:
        with serving() as server:
            spec = spec_of(server.base_url)
            found, [said] = decided(spec)
            [body] = server.bodies
        assert found == recall(found) == spec
        assert {"seed", "temperature", "top_p", "logprobs", "top_logprobs"} <= body.keys()
        assert "asked once" in said
        assert "log-probabilities" in said

    @pytest.mark.parametrize(
        ("settings", "requests"),
        [
            ({"logprobs": False}, 1),
            ({"logprobs": False, "refuses": {"logprobs": "logprobs is not supported"}}, 2),
            ({"answers": ("Sure", "Nope")}, 1),  # lists answers, but not those asked for: it thinks, say
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
        asked, known = (key_fields("s", echo_stage(one), inputs=[], sides=[])["model"] for one in (spec, found))
        assert asked["options"] != known["options"]
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


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "options", "message"),
        [
            ({"key": "sk-another-0123456789"}, {}, r"refuses the key in SCRIPTED_KEY \(401\)"),
            ({"statuses": {"": (403, {"message": "not yours"})}}, {}, r"refuses the key in SCRIPTED_KEY \(403"),
            ({}, {"key_variable": "NO_SUCH_KEY"}, "environment variable NO_SUCH_KEY is not set"),
            ({}, {"model": "other"}, "404"),
            ({"refuses": {"seed": "seed: unknown"}}, {}, r"options: \{omit: \[seed\]\}"),
        ],
    )
    def test_nothing_starts(self, settings: Mapping[str, Any], options: Mapping[str, Any], message: str) -> None:
        with serving(**settings) as server, pytest.raises(ConfigError, match=message) as caught:
            decided(spec_of(server.base_url, **options))
        assert len(server.bodies) <= 1
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
