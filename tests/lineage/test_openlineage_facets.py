from __future__ import annotations

from pathlib import Path
from typing import Any

import attr
import polars as pl
import pytest
from jsonschema import Draft202012Validator
from openlineage.client.serde import Serde
from openlineage_schemas import CLASSES, EVENT

from normloom.core.table import Manifest
from normloom.lineage.openlineage_facets import output_dataset, run_facets, schema_fields
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


def shape(fields: list[Any]) -> list[Any]:
    return [(field.name, field.type, field.ordinal_position, shape(field.fields or [])) for field in fields]


def test_nested_types_are_told_to_the_last_field() -> None:
    label = pl.Struct({"id": pl.String(), "scores": pl.List(pl.Float64())})
    schema = {"text": pl.String(), "label": label, "labels": pl.List(label), "vector": pl.Array(pl.Float32(), 3)}
    inside: list[tuple[str, str, int, list[Any]]] = [
        ("id", "string", 1, []),
        ("scores", "array", 2, [("_element", "float64", None, [])]),
    ]
    assert shape(schema_fields(schema)) == [
        ("text", "string", 1, []),
        ("label", "struct", 2, inside),
        ("labels", "array", 3, [("_element", "struct", None, inside)]),
        ("vector", "array", 4, [("_element", "float32", None, [])]),
    ]


def echoes(store: Store) -> Manifest:
    words = words_stage("a", "b", "c")
    read, _ = runner(store).run(words, [], [])
    return runner(store).run(echo_stage(words), [read.ref], [])[0]


def test_the_model_facet_adds_up_the_parts_and_leaves_out_what_the_engine_does_not_have(tmp_path: Path) -> None:
    manifest = echoes(Store(tmp_path))
    parts = [
        part.model_copy(update={"tokens_in": 100 + part.index, "tokens_out": 10 + part.index})
        for part in manifest.parts
    ]
    counted = manifest.model_copy(update={"parts": parts, "load_seconds": 1.5, "seconds": 7.25})
    facet = Serde.to_dict(run_facets(counted, reused=False)["normloom_model"])
    assert {name: value for name, value in facet.items() if not name.startswith("_")} == {
        "model": "toy",
        "engine": manifest.key_fields["model"]["engine"],
        "tokensIn": 201,
        "tokensOut": 21,
        "loadSeconds": 1.5,
        "seconds": 7.25,
    }

    weighty = {**manifest.key_fields, "model": {**manifest.key_fields["model"], "revision": "v2", "weights": "abc"}}
    facet = Serde.to_dict(
        run_facets(manifest.model_copy(update={"key_fields": weighty}), reused=False)["normloom_model"]
    )
    assert (facet["revision"], facet["digest"]) == ("v2", "abc")


def test_a_store_in_any_folder_tells_its_schema(tmp_path: Path) -> None:
    store = Store(tmp_path / "data [v1] #5%20 *x" / "date=2026-11-27")
    manifest = echoes(store)
    facets = Serde.to_dict(output_dataset(store, manifest, reused=False))["facets"]
    assert "row_id" in {field["name"] for field in facets["schema"]["fields"]}
    assert "date" not in {field["name"] for field in facets["schema"]["fields"]}


def test_a_check_that_only_warns_is_told_as_failed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest, _ = runner(store).run(words_stage("a"), [], [])
    failed = manifest.checks[0].model_copy(update={"passed": False, "on_fail": "warn", "detail": "1 of 1 rows"})
    facet = run_facets(manifest.model_copy(update={"checks": [failed]}), reused=False)["test"]
    [told] = Serde.to_dict(facet)["tests"]
    assert (told["status"], told["severity"], told["actual"]) == ("fail", "warn", "1 of 1 rows")


@pytest.mark.parametrize("name", CLASSES)
def test_our_schema_of_a_facet_agrees_with_the_client_s_class(name: str) -> None:
    facet = EVENT["$defs"][name]
    fields = [field for field in attr.fields(CLASSES[name]) if not field.name.startswith("_")]
    assert {field.name for field in fields if field.default is attr.NOTHING} <= set(facet["required"])
    assert set(facet["required"]) <= set(facet["properties"]) <= {"_schemaURL", *(field.name for field in fields)}


def test_our_schema_of_an_event_is_a_schema() -> None:
    Draft202012Validator.check_schema(EVENT)
