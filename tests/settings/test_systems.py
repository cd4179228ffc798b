from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect_home import Prefect

from normloom.core.errors import ConfigError
from normloom.settings.settings import stages_for
from normloom.settings.systems import system_named, system_names, systems
from normloom.store.store import Store
from normloom.testing import words_stage
from normloom.testing.builds import build_id, built

NEWCOMER = Path(__file__).parents[1] / "newcomer"
MODULE_LINES = 60


def normloom(*arguments: str, path: Path = NEWCOMER, store: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where a package is installed that adds a system."""
    return subprocess.run(
        [sys.executable, "-m", "normloom", *arguments, "--store", str(store)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_system_of_a_package_is_built_queried_and_traced_like_any_other(
    shared_prefect: Prefect, tmp_path: Path
) -> None:
    engine = ("--set", "model={engine: please, model: manners}")
    settings = ("--limit", "6", "--set", "resources.actors=0", *engine)
    with shared_prefect.used():
        built = normloom("build", "tone", *settings, "--json", store=tmp_path)
    assert built.returncode == 0, built.stderr
    report = json.loads(built.stdout)
    assert [stage["name"] for stage in report["stages"]] == ["ingest", "tone"]
    assert report["stages"][-1]["rows_out"] == 6
    assert Path(report["output"]).parent.name == "tone"

    asked = normloom("query", "FROM tone_tone SELECT row_id, polite", "--json", store=tmp_path)
    rows = json.loads(asked.stdout)
    assert {round(row["polite"], 3) for row in rows} <= {0.1, 0.9}  # as the package's engine has it
    manifest = Store(tmp_path).current("tone", "tone")
    assert manifest is not None
    assert manifest.key_fields["model"]["tone-system"] == "1"  # the version of its package is in the key
    traced = normloom("trace", rows[0]["row_id"], "--json", store=tmp_path)
    assert [row["stage"] for row in json.loads(traced.stdout)["rows"]] == ["tone", "ingest"]

    again = normloom("build", "tone", *settings, "--json", store=tmp_path)
    assert all(stage["reused"] for stage in json.loads(again.stdout)["stages"])


def test_it_takes_one_module_of_few_lines() -> None:
    assert len((NEWCOMER / "tone_system.py").read_text().splitlines()) < MODULE_LINES


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tone_system:MISSING", "cannot be loaded"),
        ("no_such_module:TONE", "cannot be loaded"),
        ("tone_system:tone", "must be a System, got Step"),
        ("tone_system:OTHER", "calls itself 'other'; use one name for both"),
    ],
)
def test_an_entry_point_that_is_no_system_is_named(tmp_path: Path, target: str, message: str) -> None:
    information = tmp_path / "tone_system-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tone-system\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[normloom.systems]\ntone = {target}\n")
    other = "from dataclasses import replace\nOTHER = replace(TONE, name='other')\n"
    (tmp_path / "tone_system.py").write_text((NEWCOMER / "tone_system.py").read_text() + other)
    done = normloom("plan", "tone", path=tmp_path, store=tmp_path / "store")
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert target in done.stderr


def test_an_unknown_system_names_those_there_are() -> None:
    with pytest.raises(
        ConfigError,
        match="unknown system 'savacy'; available: alignx, benchmark, conllm, cross_align, cross_cultural, ",
    ):
        system_named("savacy")
    assert [system.name for system in systems().values()] == system_names()


def test_a_setting_at_its_bound_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import normloom as nl\nfrom pydantic import Field\n"
        "from normloom.settings.system_config import SystemConfig\n"
        "class Mine(SystemConfig):\n    width: int = Field(1, le=2)\n"
        "def flow(config: Mine) -> nl.Stage:\n    return nl.table([{'word': 'a'}], name='words')\n"
    )
    with pytest.raises(ConfigError, match="--set width=2 would change nothing"):
        stages_for(str(path), profile="local", assignments=["width=2"], store=Store(tmp_path / "store"))


def test_a_flow_of_a_file_may_have_settings_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import normloom as nl\n"
        "from normloom.settings.system_config import SystemConfig\n"
        "class Mine(SystemConfig):\n    word: str = 'a'\n"
        "def flow(config: Mine) -> nl.Stage:\n    return nl.table([{'word': config.word}], name='words')\n"
        "def untold(config) -> nl.Stage:\n    return nl.table([{'word': config.word}], name='words')\n"
    )
    system = system_named(str(path))
    assert list(system.config.model_fields)[-1] == "word"
    [stage] = system.flow(system.config.model_validate({"word": "b"}))
    assert stage.name == "words"
    with pytest.raises(ConfigError, match="parameter 'config' must be declared as a SystemConfig"):
        system_named(f"{path}:untold")


def test_a_system_that_was_built_from_python_is_built_from_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, words_stage("a"), build=build_id(1))
    with pytest.raises(ConfigError, match="toy was built from Python, so no command can build it: run that script"):
        stages_for("toy", profile="local", assignments=[], store=store)
