from __future__ import annotations

from pathlib import Path

import pytest

import normloom as nl
from normloom.store.store import Store

FLOW = """
import polars as pl
import normloom as nl

@nl.step(makes={{"word": pl.String}})
def words():
    return nl.Output(rows=pl.DataFrame({{"word": ["{0}"], "parents": [[]], "content": ["{0}"]}}), attempts=1)

def flow():
    return words()
"""


@pytest.mark.usefixtures("found_prefect")
def test_two_files_of_one_name_are_two_flows_in_one_process(tmp_path: Path) -> None:
    files = [tmp_path / word / "flow.py" for word in ("one", "other")]
    for file in files:
        file.parent.mkdir()
        file.write_text(FLOW.format(file.parent.name))
    for file in files:  # both are imported before the first key
        nl.plan(file, store=tmp_path / "store")
    store = Store(tmp_path / "store")
    results = [nl.build(file, store=store.root) for file in (*files, files[0])]
    assert [result.rows.collect()["word"].to_list() for result in results] == [["one"], ["other"], ["one"]]
    assert len({result.manifest.key for result in results}) == 2
    assert results[2].reused == {"words"}
