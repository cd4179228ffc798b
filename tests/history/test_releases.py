"""Versions of releases, and the records of exports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from normloom.core.errors import StoreError, UsageError
from normloom.history.builds import find_build
from normloom.history.exports import EXPORTS, ExportRecord, exports, new_export_id, write_export
from normloom.history.releases import RELEASES, record_release, version_named, versions
from normloom.history.terms import SourceTerms
from normloom.store.layout import BUILDS
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def told(store: Store) -> list[tuple[str, int, str]]:
    return [(record.version, record.rows, record.build) for record in versions(store, "toy")]


def test_other_rows_make_a_version_and_the_same_rows_none(store: Store) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    built(store, echo_stage(words_stage(*"ab")), build=build_id(2))
    built(store, echo_stage(words_stage(*"abc")), build=build_id(3))
    assert told(store) == [("1.0.0", 2, build_id(1)), ("1.1.0", 3, build_id(3))]


def test_other_terms_of_the_source_raise_the_last_number(store: Store) -> None:
    for number, licence in enumerate((None, "mit", "mit"), start=1):
        terms = SourceTerms(name="a.csv", licence=licence)
        built(store, echo_stage(words_stage(*"ab")), build=build_id(number), source=terms)
    assert told(store) == [("1.0.0", 2, build_id(1)), ("1.0.1", 2, build_id(2))]
    assert version_named(store, "toy", "v1.0.1").source == SourceTerms(name="a.csv", licence="mit")
    assert find_build(store, build_id(3), system="toy").source.licence == "mit"


def test_other_columns_raise_the_first_number_and_a_version_names_its_build(store: Store) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    built(store, words_stage(*"ab"), build=build_id(2))
    first, second = versions(store, "toy")
    assert (first.version, second.version) == ("1.0.0", "2.0.0")
    assert first.columns != second.columns
    assert find_build(store, "2.0.0", system="toy").build == build_id(2)


def test_an_unknown_version_names_those_there_are(store: Store) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    with pytest.raises(UsageError, match=r"unknown version '3\.0\.0' of toy .*available: 1\.0\.0"):
        find_build(store, "3.0.0", system="toy")


def test_builds_that_end_at_once_get_a_version_each(store: Store) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    [first] = versions(store, "toy")
    manifest, licences = store.manifest(first.ref), [f"licence {number}" for number in range(8)]
    with ThreadPoolExecutor(len(licences)) as threads:
        made = list(
            threads.map(
                lambda name: record_release(store, manifest, build=name, source=SourceTerms(licence=name)), licences
            )
        )
    assert {record.version for record in made} == {f"1.0.{number}" for number in range(1, 9)}
    assert {record.source.licence for record in versions(store, "toy")[1:]} == set(licences)


def test_a_damaged_record_is_named(store: Store) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    path = store.root / "toy" / BUILDS / RELEASES / "1.0.0.json"
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"1\.0\.0\.json of a release is damaged"):
        versions(store, "toy")


def test_records_of_exports_come_back_with_what_was_added(store: Store, tmp_path: Path) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    [release] = versions(store, "toy")
    record = ExportRecord(
        export=new_export_id(),
        system="toy",
        version=release.version,
        build=release.build,
        created=datetime(2026, 11, 27, tzinfo=UTC),
        path=str(tmp_path / "out"),
        format="hf",
        tables=[release.ref],
    )
    write_export(store, record)
    write_export(store, record.model_copy(update={"pushed": "me/toy"}))
    assert [(one.export, one.pushed, list(one.tables)) for one in exports(store, "toy")] == [
        (record.export, "me/toy", [release.ref])
    ]


def test_a_damaged_record_of_an_export_is_named(store: Store) -> None:
    folder = store.root / "toy" / BUILDS / EXPORTS
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{")
    with pytest.raises(StoreError, match=r"1\.json of an export is damaged \(.*\): restore it from a backup"):
        exports(store, "toy")


def test_a_version_has_three_numbers(store: Store) -> None:
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    [record] = versions(store, "toy")
    with pytest.raises(ValueError, match=r"'1\.2' is not a version such as 1\.2\.0"):
        _ = record.model_copy(update={"version": "1.2"}).numbers
