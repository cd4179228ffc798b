from __future__ import annotations

import json
import logging
from pathlib import Path
from string import ascii_letters
from typing import Any

import polars as pl
import pytest
from hand_made import carry_out, ingested
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import SourceError
from normloom.core.stage import Stage
from normloom.readers import locate
from normloom.store.store import Store
from normloom.tasks.prompts.ingest import Prompts
from normloom.tasks.release.source_columns import own_columns, released_names
from normloom.testing.inline import made

RELEASED = ("prompt_id", "prompt", "response", "source_row", "origin")


def written(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def columns_of(path: Path, prompts: Stage, **settings: Any) -> Stage | None:
    return own_columns(prompts, locate(path), Prompts(**settings), released=RELEASED)


def kept(path: Path, **settings: Any) -> pl.DataFrame:
    """Return the kept columns of the rows that are ingested."""
    prompts = ingested(path, **{"keep": "all", **settings})
    columns = columns_of(path, prompts, **settings)
    assert columns is not None
    return carry_out(columns, carry_out(prompts, None).rows).rows.drop("row_id", "parents")


def test_all_columns_but_the_prompts_are_kept_with_types_of_their_own(tmp_path: Path) -> None:
    records = [
        {"prompt": "one", "id": 7, "score": 0.5, "tags": ["a", "b"], "meta": {"by": "x"}, "ok": True, "licence": None},
        {"prompt": "two", "id": 8, "score": None, "tags": [], "meta": {"by": "y"}, "ok": False, "licence": "CC0"},
    ]
    made = kept(written(tmp_path / "a.jsonl", *records))
    wanted = [{"source_row": row, **record} for row, record in enumerate(records, start=1)]
    assert made.drop("source_row").to_dicts() == [
        {name: value for name, value in record.items() if name not in {"prompt", "source_row"}} for record in wanted
    ]
    assert made["source_row"].to_list() == [1, 2]
    assert made["id"].dtype == pl.Int64
    assert made["tags"].dtype == pl.List(pl.String)


def test_a_row_that_is_not_taken_has_no_columns_and_the_others_keep_theirs(tmp_path: Path) -> None:
    records = [{"prompt": text, "id": number} for number, text in enumerate(("one", "", "three"))]
    assert kept(written(tmp_path / "a.jsonl", *records)).to_dicts() == [
        {"source_row": 1, "id": 0},
        {"source_row": 3, "id": 2},
    ]


def test_only_the_columns_that_are_named_are_kept_and_none_by_an_empty_list(tmp_path: Path) -> None:
    record = {"prompt": "one", "id": 7, "licence": "CC0", "text": "a title"}
    assert kept(written(tmp_path / "a.jsonl", record), keep=["text", "id"]).columns == ["source_row", "text", "id"]
    path = written(tmp_path / "a.jsonl", record)
    assert columns_of(path, ingested(path), keep=[]) is None


def test_an_unknown_column_is_refused_when_the_source_is_read_with_the_one_that_was_meant(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {"prompt": "one", "licence": "CC0"})
    with pytest.raises(SourceError, match=r"no column 'license'.*did you mean 'licence'\?"):
        carry_out(ingested(path, keep=["license"]), None)


def test_a_name_of_the_release_gets_a_prefix_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = {"prompt": "one", "prompt_id": 1, "source_prompt_id": 2, "Origin": "web", "parents": ["x"], "id": 3}
    with caplog.at_level(logging.INFO, logger="normloom"):
        made = kept(written(tmp_path / "a.jsonl", record))
    assert made.drop("source_row").to_dicts() == [
        {"source_source_prompt_id": 1, "source_prompt_id": 2, "source_Origin": "web", "source_parents": ["x"], "id": 3}
    ]
    assert "column 'prompt_id' is released as 'source_source_prompt_id'" in caplog.text


def test_a_column_that_the_runner_would_take_for_its_own_is_kept_and_is_no_parent(tmp_path: Path) -> None:
    record = {"prompt": "one", "content": "text", "through": "t1", "row_id": 4, "Content": "other"}
    path = written(tmp_path / "a.jsonl", record)
    columns = columns_of(path, ingested(path, keep="all"))
    assert columns is not None
    store = Store(tmp_path / "store")
    rows = store.scan(made("mine", [columns], store)["source_columns"].ref).collect()
    own = {"source_content": "text", "source_through": "t1", "source_row_id": 4, "source_source_Content": "other"}
    assert rows.drop("row_id", "parents").to_dicts() == [{"source_row": 1, **own}]
    ingest = store.current("mine", "ingest")
    assert ingest is not None
    assert rows["parents"].to_list() == [store.scan(ingest.ref).collect()["row_id"].to_list()]


@given(st.lists(st.text(ascii_letters, min_size=1, max_size=3), unique=True), st.lists(st.sampled_from(ascii_letters)))
def test_released_names_are_unique_in_any_case_and_touch_no_reserved_one(names: list[str], reserved: list[str]) -> None:
    released = released_names(names, reserved)
    assert list(released) == names
    folded = [name.casefold() for name in (*released.values(), *set(map(str.casefold, reserved)))]
    assert len(folded) == len(set(folded))
    assert all(name.endswith(own) for own, name in released.items())


LISTS = st.lists(st.integers(-9, 9), max_size=3)


@given(st.data())
def test_columns_of_any_one_type_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kinds = [st.integers(-(2**40), 2**40), st.booleans(), st.text(), st.floats(allow_nan=False, width=32), LISTS]
    columns = {name: data.draw(st.sampled_from(kinds)) for name in ("a", "b", "c")}
    texts = [*data.draw(st.lists(st.sampled_from(["one", "two", ""]), min_size=1, max_size=5)), "end"]
    records = [
        {"prompt": text, **{name: data.draw(st.none() | kind) for name, kind in columns.items()}} for text in texts
    ]
    made = kept(written(tmp_path_factory.mktemp("given") / "a.jsonl", *records))
    usable = {number: record for number, record in enumerate(records, start=1) if record["prompt"]}
    assert made["source_row"].to_list() == list(usable)
    for name in columns:
        expected = [record[name] for record in usable.values()]
        assert made[name].to_list() == expected


def test_the_case_of_a_user_s_own_id_source_and_licence(shared_data: Path) -> None:
    path = shared_data / "cases" / "id_passthrough" / "prompts.csv"
    made = kept(path)
    assert made.equals(
        pl.read_csv(path).drop("prompt").with_row_index("source_row", offset=1).cast({"source_row": int})
    )


def test_columns_that_cannot_be_read_cost_the_columns_of_their_row_and_not_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "one", "id": "a"}\n{"prompt": "two", "id": "\\ud800"}\n')
    prompts = ingested(path, keep="all")
    rows = carry_out(prompts, None).rows
    assert rows["prompt"].to_list() == ["one", "two"]
    columns = columns_of(path, prompts)
    assert columns is not None
    made = carry_out(columns, rows)
    assert made.rows["id"].to_list() == ["a"]
    assert made.quarantined.select("row_id", "rule").rows() == [(rows["row_id"][1], "lone_surrogate")]


def test_a_reference_that_the_source_lacks_is_refused_whatever_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {"prompt": "one"})
    with pytest.raises(SourceError, match="no column 'harm'"):
        carry_out(ingested(path, references={"safety": "harm"}), None)
