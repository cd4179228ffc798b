"""The report shows images blurred until they are clicked, and sound; with text of the data escaped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import soundfile as sf
from clips import clip
from PIL import Image

from normloom.readers.media import locate_media
from normloom.report.material import find_material
from normloom.report.page import page
from normloom.report.report import report
from normloom.store.store import Store
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing.builds import build_id, built


def test_pictures_are_blurred_and_sounds_can_be_played(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(source / "<b>big.png")
    sf.write(source / "tone.wav", np.sin(np.arange(4_000) * 0.3), 8_000)
    store = Store(tmp_path / "store")
    built(store, read_media(Media(), source=locate_media(source)), build=build_id(1))
    found = report(find_material(store, "toy"))
    [section] = [one for one in found["sections"] if one["name"] == "media"]
    kinds = {medium["origin"]: medium["kind"] for medium in section["data"]["media"]}
    assert kinds == {"<b>big.png": "image", "tone.wav": "sound"}
    html = page(found)
    [picture] = re.findall(r'<label class="veiled"><input type="checkbox"[^>]*><img src="([^"]+)"', html)
    assert picture.startswith("data:image/jpeg;base64,")
    assert len(picture) < 100_000 < (source / "<b>big.png").stat().st_size
    assert "&lt;b&gt;big.png" in html
    assert "<b>big" not in html
    assert len(re.findall(r'<audio controls preload="none" src="data:audio/wav;base64,[^"]+">', html)) == 1
    assert ".veiled input:checked + img { filter: none; }" in html


def test_a_frame_of_a_video_is_shown_as_an_image(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.mp4").write_bytes(clip())
    store = Store(tmp_path / "store")
    built(store, read_media(Media(), source=locate_media(source)), build=build_id(1))
    found = report(find_material(store, "toy"))
    [section] = [one for one in found["sections"] if one["name"] == "media"]
    [medium] = section["data"]["media"]
    assert medium["kind"] == "image"
    assert medium["facts"]["format"].startswith("mp4, 64 x 64, 1.")
    assert "data:image/jpeg;base64," in page(found)
    assert "<video" not in page(found)
