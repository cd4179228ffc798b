"""Releases that are compared with a benchmark: against the same builds without one."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from in_process import FEW, prepared
from rich.console import Console

from normloom.cli.output import summary
from normloom.exports.export import export
from normloom.report.material import find_material
from normloom.report.report import SECTIONS, report
from normloom.run.build import BuildRequest, reuse
from normloom.settings.systems import system_named
from normloom.store.store import Store
from normloom.tasks.release.contamination import texts_of
from normloom.testing.builds import build_id, built

COLUMNS = {
    "savacu": ("prompt", "response"),
    "misaligntrade": ("prompt", "response"),
    "demo_safetybench": ("context", "response"),
    "persodpo": ("prompt", "chosen", "rejected"),
}


def texts(rows: pl.DataFrame, system: str) -> list[str]:
    """Return the texts of each row in one."""
    columns = [texts_of(rows[name]) for name in COLUMNS[system]]
    return [" ".join("\n".join(said).split()) for said in zip(*columns, strict=True)]


def some_words(said: list[str]) -> str:
    """Return twelve words that some of the texts have, and others not."""
    for text in said:
        words = text.split()
        for start in range(0, len(words) - 11, 4):
            item = " ".join(words[start : start + 12])
            if 0 < sum(item in one for one in said) < len(said):
                return item
    raise AssertionError("all texts have the same words")


@pytest.mark.parametrize("system", FEW)
def test_rows_with_an_item_are_dropped_and_all_others_stay(system: str, four: Store, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(four.root, tmp_path / "store", symlinks=True)))
    before = store.scan(store.current(system, "publish").ref).collect()  # type: ignore[union-attr]  # built
    item = some_words(texts(before, system))
    benchmark = tmp_path / "exam.jsonl"
    benchmark.write_text(json.dumps({"question": item}))
    settings = [*FEW[system], f"decontaminate.benchmarks=[{benchmark}]", "decontaminate.overlap=1"]
    ends = prepared(system, store, *settings).ends
    built(store, *ends, build=build_id(9), system=system, profile="local", settings=settings)

    after = store.scan(store.current(system, "publish").ref).collect()  # type: ignore[union-attr]  # built
    left = [text for text in texts(before, system) if item not in text]
    assert sorted(texts(after, system)) == sorted(left)
    assert 0 < len(left) < before.height

    result = reuse(*ends, request=BuildRequest(system=system), store=store)
    assert result
    console = Console(file=StringIO(), width=120, record=True)
    summary.show(console, result, store, system=system_named(system), profile="local")
    assert "contaminated" in (shown := console.export_text())
    assert "exam.jsonl" in shown
    sections = {one["name"]: one["data"] for one in report(find_material(store, system))["sections"]}
    [told] = sections["contamination"]["benchmarks"]
    assert (told["benchmark"], told["items"], told["items_found"]) == ("exam.jsonl", 1, 1)
    both = system == "persodpo"  # whose simple pairs are searched too, and not released
    assert sections["contamination"]["dropped"] == before.height - len(left) or both
    [draw] = [one.draw for one in SECTIONS if one.name == "contamination"]
    assert len(list(draw(sections["contamination"]))) == 2
    export(store, system, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "contaminated_rows | exam.jsonl |" in card.replace("\\", "")
    assert "contaminated" in card.partition("## How it was made")[2].partition("##")[0]
