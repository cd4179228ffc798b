"""The summary of a build by scripted models: it shows what the tables hold."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console
from scripted_profile import SETTINGS

from normloom.cli.output import summary
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import SAVACU, savacu
from normloom.run.build import BuildRequest, BuildResult, reuse
from normloom.settings.config import load_profile, override, validated
from normloom.store.store import Store
from normloom.testing.builds import build_id, built

PER_LABEL = "models.classifier={engine: scripted, model: c, options: {yes_rate: 0.2}}"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildResult, Store]:
    store = Store(tmp_path_factory.mktemp("store"))
    config, _ = validated(
        SavacuConfig, override(load_profile("local", "savacu"), [*SETTINGS, PER_LABEL, "source.limit=24"])
    )
    ends = savacu(config)
    built(store, *ends, build=build_id(1), system="savacu")
    result = reuse(*ends, request=BuildRequest(system="savacu"), store=store)
    assert result is not None
    return result, store


@pytest.fixture(scope="module")
def shown(build: tuple[BuildResult, Store]) -> str:
    console = Console(file=StringIO(), width=80, record=True)
    summary.show(console, *build, system=SAVACU, profile="test")
    return console.export_text()


def test_labels_are_shown_by_precision_and_recall_of_those_that_are_kept(
    build: tuple[BuildResult, Store], shown: str
) -> None:
    result, store = build
    measured = store.scan(result["agreement"].ref).collect()
    for dimension in ("safety", "value", "cultural"):
        [line] = re.findall(rf"^ *{dimension} .*$", shown, re.MULTILINE)
        rows = {row["measure"]: row for row in measured.filter(dimension=dimension).iter_rows(named=True)}
        cells = [
            f"{row['rows']} {row['value']:.2f} {row['low']:.2f}-{row['high']:.2f}"
            for row in (rows["precision"], rows["recall"])
        ]
        top1 = rows["top1"]
        assert " ".join(line.split()) == f"{dimension} {' '.join(cells)} {top1['value']:.2f} {top1['rows']}"
        assert all(row["low"] < row["high"] for row in rows.values() if row["low"] is not None)
    assert "Precision: of the labels kept" in shown
    assert "macro recall" not in shown


def test_it_suggests_a_query_that_reads_well(shown: str) -> None:
    assert 'normloom query "FROM savacu_publish SELECT prompt, response LIMIT 5"' in shown


def test_it_is_drawn_for_80_columns(shown: str) -> None:
    lines = [line for line in shown.splitlines() if not line.startswith("  normloom ")]  # commands are never broken
    assert max(map(len, lines)) <= 80
