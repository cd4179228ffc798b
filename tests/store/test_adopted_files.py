"""Parts that a table takes over with the files of its product."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from normloom.readers.media import locate_media
from normloom.store.parts import adopt_parts
from normloom.store.store import Store
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing.toy import runner


def test_files_of_parts_that_are_taken_over_are_linked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (8, 8), "red").save(source / "red.png")
    store = Store(tmp_path / "store")
    manifest, _ = runner(store).run(read_media(Media(), source=locate_media(source)), [], [])
    before, after = store.table_directory(manifest.ref), tmp_path / "after"
    after.mkdir()
    parts = adopt_parts(before, after, manifest.parts, writer="w")
    [file] = [file for part in parts for file in part.attached]
    assert (after / file.name).samefile(before / file.name)
