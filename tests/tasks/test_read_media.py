"""Media as rows: every record accounted for, bytes in files of the product and nowhere else, near-identical images."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from normloom.core.errors import SourceError
from normloom.readers.media import MediaFolder, MediaLimits, locate_media
from normloom.store.store import Store
from normloom.tasks.media.near_images import NearImages, near_images
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing import made


def picture(seed: int, *, side: int = 160, quality: int = 90) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(small).resize((160, 160), Image.Resampling.BICUBIC).resize((side, side))
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    for name, data in {
        "a.jpg": picture(1), "b.jpg": picture(2), "c.jpg": picture(1), "d.jpg": picture(1, side=90, quality=50),
        "e.jpg": picture(3)[:900], "f.png": picture(4), "g.jpg": b"",
    }.items():  # fmt: skip
        (path / name).write_bytes(data)
    return path


def test_rows_ledger_and_files_account_for_every_medium(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    media = read_media(Media(), source=locate_media(folder))
    tables = made("pictures", [near_images(media, NearImages())], store, quarantine_budget=0.5)
    manifest = tables["media"]
    rows = store.scan(manifest.ref).sort("origin").collect()
    assert rows["origin"].to_list() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert rows["media_id"].n_unique() == 3
    aside = store.scan(manifest.ref, "quarantined").select("rule", "reason").collect()
    assert dict(aside.iter_rows())["wrong_suffix"] == "f.png: f.png is JPEG, not PNG as its suffix says"
    assert set(aside["rule"]) == {"truncated", "wrong_suffix", "empty"}
    stored = MediaFolder(store.folder(manifest.ref))
    assert stored.read(rows.row(0, named=True)) == picture(1)

    gone = store.scan(tables["near_images"].ref, "dropped").collect()
    origins = dict(rows.select("row_id", "origin").iter_rows())
    found = {
        origins[row_id]: (reason, origins[winner])
        for row_id, reason, winner in gone.select("row_id", "reason", "winner").iter_rows()
    }
    assert found == {"c.jpg": ("exact_duplicate", "a.jpg"), "d.jpg": ("near_duplicate", "a.jpg")}
    assert gone["payload"].str.json_path_match("$.distance").cast(pl.Int64).max() < 6  # type: ignore[operator]  # a number


def test_what_leads_out_of_the_folder_is_quarantined(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(picture(8))
    (folder / "h.jpg").symlink_to(tmp_path / "outside.jpg")
    store = Store(tmp_path / "store")
    media = read_media(Media(), source=locate_media(folder))
    manifest = made("pictures", [media], store, quarantine_budget=0.5)["media"]
    aside = dict(store.scan(manifest.ref, "quarantined").select("rule", "reason").collect().iter_rows())
    assert "h.jpg leads out of " in aside["outside_folder"]


def test_bytes_are_in_the_files_of_the_product_alone(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    tables = made("pictures", [read_media(Media(), source=locate_media(folder))], store, quarantine_budget=0.5)
    shards = store.folder(tables["media"].ref)
    some = picture(2)[300:330]
    holding = [
        path
        for path in (tmp_path / "store").rglob("*")
        if path.is_file() and (some in path.read_bytes() or base64.b64encode(some) in path.read_bytes())
    ]
    assert holding == list(shards.glob("*.tar"))
    assert pl.Binary not in store.scan(tables["media"].ref).collect_schema().dtypes()


def test_the_key_follows_the_media_and_not_where_they_are(folder: Path, tmp_path: Path) -> None:
    def key(path: Path, args: Media = Media()) -> str:  # noqa: B008  # frozen
        store = Store(tmp_path / "store")
        return made("pictures", [read_media(args, source=locate_media(path))], store, quarantine_budget=0.5)[
            "media"
        ].key

    first = key(folder)
    moved = folder.rename(tmp_path / "moved")
    assert key(moved) == first
    assert key(moved, Media(limits=MediaLimits(max_pixels=10**6))) != first
    (moved / "b.jpg").write_bytes(picture(7))
    assert key(moved) != first


def test_nothing_that_can_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"its only item cannot be used \(unreadable; a\.png: neither"):
        made("pictures", [read_media(Media(), source=locate_media(tmp_path))], Store(tmp_path / "store"))
