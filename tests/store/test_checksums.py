"""Checksums of files: BLAKE3 of tables, SHA-256 of files of products and of tables that an older version wrote."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from blake3 import blake3

from normloom.core.table import FileRecord, Manifest, PartRecord
from normloom.store.integrity import file_problem
from normloom.store.layout import FORMAT_FILE, part_marker
from normloom.store.parts import content_hash
from normloom.store.store import Store
from normloom.store.verify import verify
from normloom.testing.toy import echo_stage, runner, words_stage

# "hash" of BLAKE3's published test vectors (test_vectors.json), by length; the input repeats the bytes 0 to 250
PUBLISHED = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
}
LARGE = bytes(range(251)) * 4000  # a megabyte, read in pieces


@pytest.mark.parametrize("size", PUBLISHED)
def test_files_have_the_published_checksums(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE[:size])
    record = FileRecord(name="file", rows=0, bytes=size, blake3=PUBLISHED[size])
    assert file_problem(tmp_path, record) is None
    assert record.checksum == PUBLISHED[size]


@pytest.mark.parametrize("checksum", [{"blake3": blake3(LARGE).hexdigest()}, {"sha256": sha256(LARGE).hexdigest()}])
def test_any_changed_byte_and_any_other_size_is_found(checksum: dict[str, str], tmp_path: Path) -> None:
    record = FileRecord.model_validate({"name": "file", "rows": 0, "bytes": len(LARGE), **checksum})
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    assert file_problem(tmp_path, record) is None
    for place in (0, 2**18, len(LARGE) - 1):
        content = bytearray(LARGE)
        content[place] ^= 1
        path.write_bytes(content)
        assert file_problem(tmp_path, record) == "is damaged: its checksum differs"
    path.write_bytes(LARGE[:-1])
    assert file_problem(tmp_path, record) == "has 1,003,999 bytes, expected 1,004,000"
    path.write_bytes(LARGE + b"1")
    assert file_problem(tmp_path, record) == "has 1,004,001 bytes, expected 1,004,000"


def test_a_file_without_a_checksum_does_not_verify(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert file_problem(tmp_path, FileRecord(name="file", rows=0, bytes=0)) == "is damaged: its checksum differs"


OLD = (  # as format 5 wrote it
    '{"system":"toy","stage":"words","key":"d94e5335c81788299975","key_fields":{"format":2},'
    '"content":"db005112e016950c6443","inputs":[],"sides":[],"parts":[{"index":0,"start":0,"stop":0,'
    '"files":{"rows":{"name":"rows-00000-d9fa1e.parquet","rows":2,"bytes":1456,'
    '"sha256":"e5994f55f16ffe9c243eef664870925e2c49ad94381a838e9ac9da87c4a6ef62"},"dropped":{"name":"","rows":0,'
    '"bytes":0,"sha256":""},"quarantined":{"name":"","rows":0,"bytes":0,"sha256":""}},"attempts":2,'
    '"dropped_by":{},"quarantined_by":{},"tokens_in":0,"tokens_out":0,"seconds":1.5,"metrics":{},"usage":{},'
    '"attached":[],"reads":""}],"rows_in":0,"seconds":1.5,"load_seconds":0.0,"checks":[],"build":"test",'
    '"created":"2026-11-29T20:15:24.810+00:00","remake":0,"work":null,'
    '"seal":"8c536f45b75a2276c1915f7421b5c4f2774df82d27eabebb3a633461130605ad"}'
)


def test_the_seal_of_an_older_manifest_holds() -> None:
    manifest = Manifest.model_validate_json(OLD)
    assert manifest.intact
    assert manifest.content == content_hash(manifest.parts)
    assert manifest.model_dump_json() == OLD
    edited = Manifest.model_validate_json(OLD.replace('"rows":2', '"rows":3', 1))
    assert not edited.intact


def by_sha256(store: Store, manifest: Manifest) -> Manifest:
    """Write the records of a table as format 5 had them."""
    directory = store.table_directory(manifest.ref)

    def older(part: PartRecord) -> PartRecord:
        files = {
            kind: file.model_copy(
                update={"blake3": "", "sha256": sha256((directory / file.name).read_bytes()).hexdigest()}
            )
            if file.name
            else file
            for kind, file in part.files.items()
        }
        return part.model_copy(update={"files": files})

    parts = [older(part) for part in manifest.parts]
    for part in parts:
        part_marker(directory, part.index).write_text(part.model_dump_json(indent=1))
    made = manifest.model_copy(update={"parts": parts, "content": content_hash(parts)}).sealed()
    store.publish(made)
    return made


def test_an_increment_takes_parts_of_an_older_store_over_as_they_are(tmp_path: Path) -> None:
    words, more, store = words_stage(*"abcdef"), words_stage(*"abcdefg"), Store(tmp_path)
    source = by_sha256(store, runner(store).run(words, [], [])[0])
    old = by_sha256(store, runner(store).run(echo_stage(words, drop="b"), [source.ref], [])[0])
    (tmp_path / FORMAT_FILE).write_text("5\n")
    store = Store(tmp_path)
    assert list(verify(store)) == []
    assert runner(store).run(echo_stage(words, drop="b"), [source.ref], []) == (old, True)
    grown, _ = runner(store).run(more, [], [])
    new, _ = runner(store).run(echo_stage(more, drop="b"), [grown.ref], [])
    assert [part.files for part in new.parts[:3]] == [part.files for part in old.parts]
    assert [(bool(file.sha256), bool(file.blake3)) for part in new.parts for file in part.stored] == [
        *[(True, False)] * 4,
        (False, True),
    ]
    assert list(verify(Store(tmp_path))) == []
    directory = store.table_directory(new.ref)
    for part in (new.parts[1], new.parts[3]):
        path = directory / part.files["rows"].name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()  # the old table has the file too
        path.write_bytes(content)
    found = [(one.key, one.part, one.problem) for one in verify(Store(tmp_path))]
    assert found == [(new.key, number, "is damaged: its checksum differs") for number in (1, 3)]
