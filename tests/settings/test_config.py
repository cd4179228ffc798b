from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import ConfigError
from normloom.flows.savacu.config import SavacuConfig
from normloom.settings.config import PROFILES, Role, load_profile, override, profile_names, validated
from normloom.settings.environment import substituted
from normloom.settings.settings import stages_for
from normloom.settings.systems import system_named, system_names
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.workers.resources import Resources


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the profile `hosted` needs."""
    monkeypatch.setenv("NORMLOOM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("NORMLOOM_MODEL", "toy")


def configured(*assignments: str, profile: str = "local") -> tuple[SavacuConfig, Resources]:
    return validated(SavacuConfig, override(load_profile(profile, "savacu"), assignments))


WITH_MODELS = [name for name in profile_names() if name != "replay"]


@pytest.mark.parametrize("profile", WITH_MODELS)
@pytest.mark.parametrize("system", system_names())
def test_every_profile_makes_every_flow(system: str, profile: str, tmp_path: Path) -> None:
    prepared = stages_for(system, profile=profile, assignments=(), store=Store(tmp_path))
    stages = stages_of(*prepared.ends)
    assert len({stage.name for stage in stages}) == len(stages)
    assert any(stage.model for stage in stages)
    assert prepared.resources.actors >= 1


@pytest.mark.parametrize("profile", WITH_MODELS)
def test_a_profile_names_each_model_once_so_a_new_system_has_its_models(profile: str) -> None:
    content = yaml.safe_load((PROFILES / f"{profile}.yaml").read_text())
    models = [json.dumps(spec, sort_keys=True) for spec in content["models"].values()]
    assert len(models) == len(set(models))
    assert not [name for name, own in content["systems"].items() if {"models", "judges"} & own.keys()]
    of_systems = {
        role: kind.several for name in system_names() for role, kind in system_named(name).config.roles().items()
    }
    every = {role: Role(("models", role), several=of_systems[role]) for role in content["roles"]}  # KeyError: no role
    assert load_profile(profile, "new_system", every)["models"].keys() == content["roles"].keys()


def test_profiles_are_those_the_help_names() -> None:
    assert profile_names() == ["cpu", "gpu", "hosted", "local", "ollama", "paper", "replay", "vllm-cpu"]


def test_the_paper_profile_has_the_paper_s_values() -> None:
    config, _ = configured(profile="paper")
    assert (config.classify.route, config.classify.delta) == ("exhaustive", 0.5)
    assert (config.expand.minimum, config.expand.quota) == (100, 100)
    assert (config.deduplicate.tau, config.deduplicate.jaccard) == (10, 0)
    assert (config.generate.candidates, config.rounds, config.pairs) == (3, 2, True)
    assert [config.expand.sampling.temperature, config.expand.sampling.top_p, config.expand.sampling.max_tokens] == [
        0.7,
        0.9,
        64,
    ]
    sampling = config.generate.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.7, 0.9, 512)
    assert (config.split.train, config.split.validation, config.split.test, config.split.seed) == (0.8, 0.1, 0.1, 42)
    assert len(config.models.generators) == 4


def test_assignments_reach_into_settings_and_are_yaml() -> None:
    config, resources = configured(
        "classify.delta=0.4",
        "resources.actors=0",
        "expand.dimensions=[safety, value]",
        "source.path=a b.csv",
        "source.limit=",
        "generate.sampling={temperature: 1, max_tokens: 9}",
        "models.judge.model=other",
    )
    assert config.classify.delta == 0.4
    assert resources.actors == 0
    assert config.expand.dimensions == ("safety", "value")
    assert config.source.path == "a b.csv"
    assert config.source.limit is None
    assert (config.generate.sampling.temperature, config.generate.sampling.top_p) == (1, 0.9)
    assert config.models.judge.model == "other"
    assert config.models.expander.model == "SmolLM2-135M-Instruct"  # which the profile's alias shares with the judge


def test_the_last_assignment_wins_and_a_value_may_hold_an_equals_sign() -> None:
    assert override({}, ["a.b=1", "a.b=x=y"]) == {"a": {"b": "x=y"}}


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


@given(st.dictionaries(st.sampled_from("abc"), st.integers()), st.lists(st.tuples(names, st.integers())))
def test_overriding_leaves_the_given_settings_alone(given: dict[str, Any], assignments: list[tuple[str, int]]) -> None:
    before = {"top": dict(given)}
    try:
        changed = override(before, [f"top.{name}={value}" for name, value in assignments])
    except ConfigError:
        changed = None  # a name reached into a number
    assert before == {"top": given}
    if assignments and changed:
        found: Any = changed["top"]
        for step in assignments[-1][0].split("."):
            found = found[step]
        assert found == assignments[-1][1]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("classify.delta=1.5", r"^setting classify\.delta: input should be less than 1, not 1\.5$"),
        ("classify.delta=0", r"^setting classify\.delta: input should be greater than 0, not 0$"),
        ("classify.delta=half", r"^setting classify\.delta: expected a number, not 'half'$"),
        ("classify.dleta=0.4", r"^unknown setting classify\.dleta, did you mean delta\?$"),
        ("clasify.delta=0.4", r"^unknown setting clasify, did you mean classify\?$"),
        ("resources.actor=1", r"^unknown setting resources\.actor, did you mean actors or max_actors\?$"),
        ("resources.actors=-1", r"^setting resources\.actors: input should be greater than or equal to 0, not -1$"),
        ("resources=", r"^setting resources: expected names with values, such as \{name: value\}, not None$"),
        ("classify.route=guess", r"^setting classify\.route: input should be 'exhaustive', 'shortlist' or 'embedding'"),
        (
            "models.judge={engine: vllm}",
            r"^setting models\.judge\.model is missing: the profile or --set must give it$",
        ),
        ("models.generators={}", r"^setting models\.generators: expected at least 1 of them, not \{\}$"),
        ("models.generators={a-b: {model: x}}", r"^models\.generators: 'a-b' names stages and tables; use letters"),
        (
            "source.references.colour=x",
            r"^source\.references: unknown dimension 'colour'; available: safety, value",
        ),
        (
            "expand.dimensions=[taste]",
            r"^expand\.dimensions: unknown dimension 'taste'; available: safety, value",
        ),
        ("rounds=-1", r"^setting rounds: input should be greater than or equal to 0, not -1$"),
        (
            "expand.dimensions=[[x]]",
            r"^setting expand\.dimensions\.0: expected a text, not \['x'\]$",
        ),
        ("classify", r"^--set 'classify': expected name=value"),
        ("=3", r"^--set '=3': expected name=value"),
        ("classify.delta=[1", r"^--set classify\.delta: '\[1' is not a YAML value$"),
        ("rounds.first=1", r"^setting rounds: expected a whole number, not \{'first': 1\}$"),
        (
            "deduplicate={method: minhash, jaccard: 0}",
            r"^deduplicate: 128 permutations propose a pair of Jaccard simil",
        ),
        ("classify.delta.x=1", r"^setting classify\.delta: expected a number, not \{'x': 1\}$"),
        ("release.min_rows=1.5", r"^setting release\.min_rows: expected a whole number, not 1\.5$"),
        ("expand.dimensions=safety", r"^setting expand\.dimensions: expected a list, such as \[a, b\], not 'safety'$"),
        ("pairs=flase", r"^setting pairs: expected true or false, not 'flase'$"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(assignment)


def test_the_method_that_finds_duplicates_is_a_setting() -> None:
    config, _ = configured("deduplicate={method: minhash, jaccard: 0.7, recall: 0.9}")
    chosen = config.deduplicate
    assert (chosen.method, chosen.jaccard, chosen.recall) == ("minhash", 0.7, 0.9)


def test_reaching_into_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set classify\.route\.x: 'route' holds a value, not settings by name"):
        configured("classify.route.x=1")


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"classify\.delta: .*; .*unknown setting expand\.quotas"):
        configured("classify.delta=2", "expand.quotas=3")


def test_an_unknown_profile_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError,
        match="unknown profile 'lokal'; available: cpu, gpu, hosted, local, ollama, paper, replay, vllm-cpu, or the",
    ):
        load_profile("lokal", "savacu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources: [", "is not valid YAML: .*line 1"),
        ("caf\xe9".encode("latin-1"), "is not valid YAML: "),
        ("- a", r"expected settings by name, found \['a'\]"),
        ("ressources: {}", "unknown section 'ressources'; available: models, roles, resources, systems"),
        ("systems: 3", "systems: expected settings by name, found 3"),
        ("systems: {savacu: [1]}", r"systems\.savacu: expected settings by name, found \[1\]"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        load_profile(str(path), "savacu")


def test_a_profile_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_profile(str(tmp_path / "p.yaml"), "savacu")


@pytest.mark.parametrize("text", ["", "systems:\n", "resources:\nsystems:\n  savacu:\n", "systems: {other: {a: 1}}"])
def test_a_profile_with_nothing_about_the_system_gives_no_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yml"
    path.write_text(text)
    assert load_profile(str(path), "savacu") == {"resources": {}}


class TestVariables:
    @pytest.mark.parametrize(
        "system", ["savacu", "misaligntrade", "demo_safetybench", "benchmark", "persodpo", "cross_cultural"]
    )
    def test_one_that_is_not_set_is_named(self, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
        monkeypatch.delenv("NORMLOOM_MODEL")
        with pytest.raises(
            ConfigError,
            match=r"profile hosted needs .* not set: export NORMLOOM_MODEL=\.\.\.$",
        ):
            load_profile("hosted", system)

    def test_they_stand_for_texts_and_defaults_for_those_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        judge = configured(profile="hosted")[0].models.judge
        assert (judge.model, judge.options["key_variable"]) == ("toy", "OPENAI_API_KEY")
        assert judge.options["base_url"] == "http://127.0.0.1:9/v1"
        monkeypatch.delenv("NORMLOOM_MODEL")
        monkeypatch.setenv("NORMLOOM_BASE_URL", " ")
        judge = configured(profile="ollama")[0].models.judge
        assert (judge.model, judge.options["base_url"]) == ("llama3.2", "http://127.0.0.1:11434/v1")

    def test_a_key_is_never_filled_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
        profile = tmp_path / "own.yaml"
        profile.write_text('systems: {savacu: {models: {judge: {model: "${OPENAI_API_KEY}"}}}}')
        with pytest.raises(ConfigError, match=r"\$\{OPENAI_API_KEY\} is not filled in.*key_variable") as caught:
            load_profile(str(profile), "savacu")
        assert "sk-secret" not in str(caught.value)

    @given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
    def test_a_value_is_taken_as_it_is(self, value: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NORMLOOM_MODEL", value)
            found = substituted({"a": ["x ${NORMLOOM_MODEL:-y}"]}, "here")
        assert found == {"a": [f"x {value.strip() or 'y'}"]}


ROLES = """
models:
  small: {engine: scripted, model: s}
  large: {engine: scripted, model: l}
roles: {classifier: small, expander: small, judge: large, generators: [small, large], entrants: [small], judges: large}
systems:
  savacu:
    roles: {judge: small}
    models: {expander: {engine: scripted, model: x}}
"""


def test_a_profile_names_models_once_and_the_roles_they_play(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(ROLES)
    config, _ = configured("models.classifier.options={words: 3}", profile=str(path))
    models = config.models
    assert [spec.model for spec in (models.classifier, models.expander, models.judge)] == ["s", "x", "s"]
    assert {name: spec.model for name, spec in models.generators.items()} == {"small": "s", "large": "l"}
    assert models.classifier.options == {"words": 3}
    benchmark = load_profile(str(path), "benchmark")
    assert {name: list(benchmark[name]) for name in ("models", "judges")} == {"models": ["small"], "judges": ["large"]}


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ("{judge: big}", "role judge: unknown model 'big'; available: small"),
        ("{judge: [small, small]}", "role judge takes one model, not 2"),
    ],
)
def test_a_role_that_cannot_be_played_is_named(tmp_path: Path, roles: str, sentence: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"models: {{small: {{engine: scripted, model: s}}}}\nroles: {roles}\n")
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path), "savacu")
    assert sentence in str(caught.value)
