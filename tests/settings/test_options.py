"""Every option of `build`, for every system: it is honoured, or refused by name. Nothing is silently ignored."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from in_process import SCRIPTED, prepared

from normloom.cli import deployed
from normloom.cli.commands.reading.quarantine import quarantine
from normloom.cli.commands.reading.why import why
from normloom.cli.commands.running.build import build
from normloom.cli.commands.running.plan import plan
from normloom.cli.commands.running.serve import _fitting, serve
from normloom.cli.common import assignments
from normloom.core.errors import ConfigError, UsageError
from normloom.core.stage import Stage
from normloom.flows.savacu.config import SavacuConfig
from normloom.settings.settings import stages_for
from normloom.settings.systems import system_names
from normloom.steps.graph import stages_of
from normloom.steps.selection import Selection
from normloom.store.store import Store
from normloom.testing.inline import made

SYSTEMS = system_names()
HAND_ON = {"source", "text_column", "limit", "set_"}  # options that become settings
LIMITS = {"max_requests", "max_cost"}  # so do these; test_bounds
CHOOSE = {"only", "from_", "force", "fresh"}  # options that choose stages
ELSEWHERE = {"system", "profile", "store", "json_"}  # test_config, test_cli_build
SOURCES = {
    "savacu": ("ask,other\nIs tea good?,Is it?\nMay I run?,May I?\nCan cats swim?,Can they?\n", "ask"),
    "benchmark": (
        (
            "ask,other,response,alignment\nIs tea good?,x y,Yes.,aligned\nMay I run?,y z,No.,misaligned\n"
            "Who?,z a,Me.,aligned\n"
        ),
        "ask",
    ),
    "demo_safetybench": (
        "item_id,rater_id,Q_overall,context,response\n1,a,Yes,Hello,Hi\n2,a,No,Who is it,Me\n3,a,No,Why,So\n",
        None,
    ),
}
SOURCES["persodpo"] = (
    "prompt_id,persona,context\n1,I like tea.,User1: Hello\n2,I swim.,User1: Hello\n3,I paint.,User1: Who is it?\n",
    None,
)
SOURCES["cross_cultural"] = (
    "meme_id,text_en,text_de,text_es,text_hi,text_zh,label_us,label_de,label_mx,label_cn,label_in\n"
    + "".join(f"{meme},Hello,Hallo,Hola,x,y,0,1,0,1,0\n" for meme in range(3)),
    None,
)
SOURCES["missing_modality"] = SOURCES["cross_cultural"]
SOURCES["cross_align"] = ("id,text,label\n1,Hello there,0\n2,Go away,1\n3,Good night,0\n", None)
SOURCES["conllm"] = (
    "item_id,label,speaker,generator,source_item,path\na,real,x,,1,a.wav\nb,fake,x,g,1,b.wav\nc,real,y,,2,c.wav\n",
    None,
)
SOURCES["alignx"] = ("axis,prompt\nhelpful,How do I sew?\nharmless,May I steal?\nhonest,Is it so?\n", None)
SOURCES["persopilot"] = (
    "username,task,topic,relation,object\n" + "".join(f"u{n},Leisure,Book,likes,book {n}\n" for n in range(3)),
    None,
)
SOURCES["misaligntrade"] = SOURCES["savacu"]


@pytest.fixture(scope="module", params=["empty", "published"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty store, and one in which the tables are published that other systems start from."""
    store = Store(tmp_path_factory.mktemp("store"))
    if request.param == "published":
        split = "split={train: 0.2, validation: 0.2, test: 0.6}"
        ends = prepared("savacu", store, "classify.route=exhaustive", "source.limit=16", "rounds=0", split).ends
        made("savacu", ends, store)
    return store


@pytest.fixture
def source(system: str, tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(SOURCES[system][0])
    return path


def stages(system: str, store: Store, *settings: str, **options: Any) -> dict[str, Stage]:
    given = assignments(**{"source": None, "text_column": None, "limit": None, "settings": None, **options})
    facts_alone = system == "persopilot" and options.get("source")  # without labels nobody is asked: no model
    scripted = [] if facts_alone else SCRIPTED[system]
    found = stages_for(system, profile="local", assignments=[*scripted, *given, *settings], store=store)
    return {stage.name: stage for stage in stages_of(*found.ends)}


def first(system: str, store: Store, **options: Any) -> Stage:
    return next(iter(stages(system, store, **options).values()))


def test_every_option_is_walked() -> None:
    assert set(inspect.signature(build).parameters) == HAND_ON | CHOOSE | ELSEWHERE | LIMITS
    assert set(inspect.signature(plan).parameters) == HAND_ON | CHOOSE | ELSEWHERE | LIMITS
    assert set(inspect.signature(why).parameters) == HAND_ON | ELSEWHERE | {"stage"}
    assert set(inspect.signature(serve).parameters) >= HAND_ON | {"profile", "store"}
    names = {"settings": "set_", "from_stage": "from_"}
    for system in system_names():
        flow = getattr(deployed, system)
        parameters = {names.get(name, name) for name in inspect.signature(flow.fn).parameters}
        assert parameters == HAND_ON | CHOOSE | {"profile", "store"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_given_source_is_what_is_read(system: str, store: Store, source: Path) -> None:
    column = SOURCES[system][1]
    found = stages(system, store, source=source, text_column=column)
    assert not any(stage.table for stage in found.values())
    read = next(iter(found.values()))
    assert read.given["source"].name == str(source)
    assert read.function(read.arguments, **read.values).rows.height == 3


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_text_column_is_read_or_refused(system: str, store: Store, source: Path) -> None:
    if SOURCES[system][1] is None:
        with pytest.raises(ConfigError, match=rf"{system} takes no --text-column"):
            stages(system, store, source=source, text_column="other")
        return
    read = first(system, store, source=source, text_column="other")
    assert set(read.function(read.arguments, **read.values).rows["prompt"]) <= {
        "Is it?",
        "May I?",
        "Can they?",
        "x y",
        "y z",
        "z a",
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_text_column_without_a_source_is_refused(system: str, store: Store) -> None:
    with pytest.raises(ConfigError, match="--text-column") as caught:
        stages(system, store, text_column="other")
    assert system in str(caught.value)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_limit_limits_whatever_a_build_starts_from(system: str, store: Store) -> None:
    scratch = Store(store.root)
    found = stages(system, scratch, limit=2)
    reading = {
        "savacu": "ingest",
        "misaligntrade": "take" if "take" in found else "ingest",
        "demo_safetybench": "conversations",
        "benchmark": "items",
        "persodpo": "prompts",
        "cross_cultural": "memes",
        "missing_modality": "memes",
        "cross_align": "memes",
        "conllm": "recordings",
        "persopilot": "facts",
        "alignx": "axis_rows",
    }[system]
    ends = [found[reading]]
    assert made(system, ends, scratch)[reading].count("rows") == (
        {"persodpo": 4, "alignx": 6}.get(system, 2)
    )  # of each of its splits, or axes


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_setting_is_honoured_or_refused(system: str, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting classify(\.detla)?"):
        stages(system, store, "classify.detla=0.6")
    assert stages(system, store, "quarantine_budget=0.5")  # a setting of the build, not of a stage
    if system not in {"savacu", "misaligntrade", "demo_safetybench"}:  # the others give no labels
        return
    published = "savacu_classify" in stages(system, store)
    if published:  # its labels are there already
        with pytest.raises(ConfigError, match=r"--set classify.delta=0.61 would change nothing .* savacu/classify/"):
            stages(system, store, "classify.delta=0.61")
    else:
        labelled = stages(system, store, "classify.delta=0.61")
        assert any("0.61" in stage.arguments.model_dump_json() for stage in labelled.values())


def test_a_setting_that_other_settings_switch_off_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ConfigError, match=r"--set classify.shortlist=3 would change nothing in this build of savacu"):
        stages("savacu", store, "classify.route=exhaustive", "classify.shortlist=3")
    assert stages("savacu", store, "classify.route=shortlist", "classify.shortlist=3")
    same = SavacuConfig.model_fields["rounds"].default
    assert stages("savacu", store, f"rounds={same}", "rounds=1")  # as it is anyway, and then overruled


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("option", ["only", "start", "force"])
def test_a_choice_of_stages_is_honoured_or_refused(system: str, option: str, store: Store) -> None:
    found = list(stages(system, store).values())
    last = found[-1].name
    given: Any = last if option == "start" else (last,)
    selection = Selection(**{option: given})
    if option == "force":
        assert selection.again(last) == "all"
    else:
        assert selection.chosen(found) == {last}
    unknown: Any = "clasify" if option == "start" else ("clasify",)
    with pytest.raises(UsageError, match="unknown stage 'clasify'"):
        Selection(**{option: unknown}).chosen(found)


def test_options_of_a_replay_are_refused_without_one(store: Store) -> None:
    if not store.systems():
        return
    with pytest.raises(UsageError, match="need --replay"):
        quarantine(system="savacu", store=store.root, limit=3)


def test_what_a_system_does_not_take_is_said_when_it_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text(SOURCES["benchmark"][0])
    given = assignments(source=str(tmp_path / "mine.csv"), text_column="ask", limit=None, settings=None)
    served = _fitting(None, "local", given, tmp_path / "store")
    assert served == ["benchmark", "misaligntrade", "savacu"]
    assert "demo_safetybench is not served: demo_safetybench takes no --text-column" in capsys.readouterr().err


def test_a_column_of_a_name_with_quotes_is_one_setting() -> None:
    given = assignments(source="a 'b'.csv", text_column='x "y"', limit=3, settings=["rounds=1"])
    assert given[1] == f"source.text_column={json.dumps(chr(120) + ' ' + chr(34) + 'y' + chr(34))}"
