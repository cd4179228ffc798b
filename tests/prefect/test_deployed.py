from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect_home import Prefect
from scripted_profile import write_profile

from normloom.cli import deployed as deployed_flows
from normloom.core.errors import ConfigError, UsageError
from normloom.settings.flow_file import attribute_of
from normloom.settings.systems import system_names
from normloom.store.store import Store

FLOW = """
import normloom as nl, polars as pl

@nl.step(makes={"text": pl.String, "loud": pl.String})
def shout(rows):
    return rows.with_columns(loud=rows["text"].str.to_uppercase())

def flow():
    return shout(nl.table([{"text": "a"}, {"text": "b"}]))
"""


@pytest.mark.parametrize("name", system_names())
def test_a_deployment_finds_the_flow_of_a_system_by_name(name: str) -> None:
    flow: Flow[..., Any] = load_flow_from_entrypoint(f"normloom.cli.deployed.{name}", use_placeholder_flow=False)
    assert flow is getattr(deployed_flows, name)
    assert flow.name == name


def test_the_flows_are_found_from_any_directory(tmp_path: Path) -> None:
    code = "from prefect.flows import load_flow_from_entrypoint; "
    code += "print(load_flow_from_entrypoint('normloom.cli.deployed.savacu').name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "savacu"


def test_the_form_of_a_run_explains_each_parameter_and_asks_for_none() -> None:
    parameters = deployed_flows.savacu.parameters
    assert not parameters.required
    assert all(field["description"] for field in parameters.properties.values())
    kinds = {name: field["type"] for name, field in parameters.properties.items() if "type" in field}
    assert kinds == {
        "profile": "string",
        "only": "array",
        "force": "array",
        "fresh": "boolean",
        "settings": "array",
        "store": "string",
    }


def test_wrong_parameters_are_told_in_our_words(tmp_path: Path) -> None:
    build = deployed_flows.savacu.fn
    with pytest.raises(ConfigError, match="unknown profile 'lokal'"):
        build(profile="lokal", store=str(tmp_path))
    profile = str(write_profile(tmp_path / "quick.yaml"))
    with pytest.raises(UsageError, match="unknown stage 'clasify'"):
        build(profile=profile, limit=4, only=("clasify",), store=str(tmp_path))
    with pytest.raises(ConfigError, match=r"generate\.candidats"):
        build(profile=profile, settings=("generate.candidats=2",), store=str(tmp_path))


def test_a_flow_in_a_file_is_found_by_a_deployment_in_any_process(tmp_path: Path, shared_prefect: Prefect) -> None:
    file = tmp_path / "shout.py"
    file.write_text(FLOW)
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        f"normloom.cli.deployed.{attribute_of(str(file))}", use_placeholder_flow=False
    )
    assert flow.name == "shout"
    store = tmp_path / "store"
    with shared_prefect.used():
        flow.fn(store=str(store))
    manifest = Store(store).current("shout", "shout")
    assert manifest is not None
    assert Store(store).scan(manifest.ref).collect()["loud"].to_list() == ["A", "B"]
    with pytest.raises(AttributeError, match="no attribute 'savaku'"):
        _ = deployed_flows.savaku
