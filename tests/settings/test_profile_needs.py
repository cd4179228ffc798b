from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from normloom.cli.machine.profile_needs import examine_profile, too_many_processors
from normloom.cli.run import check_models
from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.models.installed import missing_engines
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, words_stage
from normloom.workers.resources import Resources

VLLM = ModelSpec(engine="vllm", model="some/model")
absent = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed: no engine is missing")


def test_the_engine_of_the_local_profile_is_found() -> None:
    found = {finding.name: finding.state for finding in examine_profile("local", [])}
    assert found["engine transformers"] == found["engine use"] == "ok"
    assert missing_engines([ModelSpec(engine="transformers", model="any")]) == {}


def test_a_model_that_cannot_see_is_named(tmp_path: Path) -> None:
    profile = tmp_path / "looks.yaml"
    profile.write_text(
        "models: {small: {engine: transformers, model: SmolLM2-135M-Instruct}}\n"
        "roles: {entrants: [small]}\n"
        "systems: {cross_cultural: {by: scored, ask: {look: true}}}\n"
    )
    found = {finding.name: finding for finding in examine_profile(str(profile), [])}
    assert found["media of cross_cultural"].state == "broken"
    assert "model 'SmolLM2-135M-Instruct' cannot see them" in found["media of cross_cultural"].detail
    ends = stages_for("cross_cultural", profile=str(profile), assignments=[], store=Store(tmp_path / "store")).ends
    with pytest.raises(ConfigError, match="stage 'score_small' asks about images"):
        check_models(ends, Resources())


@absent
def test_an_engine_that_is_not_installed_is_named_with_the_command_that_installs_it() -> None:
    found = {finding.name: finding for finding in examine_profile("gpu", [])}
    engine = found["engine vllm"]
    assert engine.state == "broken"
    assert engine.remedy.startswith('pip install "normloom[gpu]"')


@absent
def test_a_build_with_an_engine_that_is_not_installed_does_not_start() -> None:
    stage = echo_stage(words_stage("one"), model=VLLM)
    with pytest.raises(ConfigError, match=r"engine 'vllm' .* needs vllm, not installed here; install it with: pip"):
        check_models([stage], Resources())


def test_a_machine_with_too_few_processors_is_told_what_fits() -> None:
    spec = ModelSpec(engine="scripted", model="toy")
    assert too_many_processors([spec], Resources(actors=2, threads=2), has=4) is None
    assert too_many_processors([spec], Resources(actors=4, threads=2, address="elsewhere:6379"), has=4) is None
    words = too_many_processors([spec], Resources(actors=4, threads=2), has=4)
    assert words == ("4 actors of 2 CPUs ask for 8, this machine has 4: they will share; --set resources.actors=2 fits")
    assert "--set resources.actors=1 --set resources.threads=4" in (
        too_many_processors([spec], Resources(actors=1, threads=8), has=4) or ""
    )


def test_settings_that_fit_no_system_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"resources\.actors"):
        examine_profile("local", ["resources.actors=-1"])


def test_a_model_that_is_not_there_stops_a_build_before_it_starts() -> None:
    stage = echo_stage(words_stage("one"), model=ModelSpec(engine="transformers", model="/no/model"))
    with pytest.raises(ConfigError, match="/no/model"):
        check_models([stage], Resources())
