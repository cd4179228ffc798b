"""Videos of our own making: what can be decoded to its end is taken, what cannot is refused; frames and soundtrack."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest
from clips import clip
from PIL import Image

from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ImageEmbedder, ModelSpec
from normloom.models import load_model
from normloom.readers.media import BadMediaError, MediaLimits, decode, frames_of, locate_media, waveform
from normloom.store.store import Store
from normloom.tasks.media.encode import MediaEncoding, encode_videos
from normloom.tasks.media.read_media import Media, facts, read_media
from normloom.testing import made

LIMITS = MediaLimits(max_seconds=3, max_pixels=10_000)


def live(seconds: int, *, form: str = "webm") -> bytes:
    """Return a video of 8 frames a second, written as a broadcast is: its header does not say how long it lasts."""
    stream = io.BytesIO()
    options = {"live": "1"} if form == "webm" else {}
    with av.open(stream, "w", format=form, options=options) as container:
        picture = container.add_stream("libvpx" if form == "webm" else "mpeg4", rate=8)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
        for number in range(8 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), format="rgb24")
            container.mux(picture.encode(frame))
        if seconds:
            container.mux(picture.encode())
    return stream.getvalue()


def larger_than_stated() -> bytes:
    """Return a video of 128 x 128 pixels whose header says 16 x 16 (PixelWidth and PixelHeight of Matroska)."""
    data = clip(form="webm", side=128)
    for element in (b"\xb0", b"\xba"):
        assert data.count(element + b"\x81\x80") == 1
        data = data.replace(element + b"\x81\x80", element + b"\x81\x10")
    return data


class TestDecode:
    @pytest.mark.parametrize(("form", "suffix"), [("mp4", "mov"), ("webm", "mkv"), ("avi", "avi")])
    def test_what_a_video_is(self, form: str, suffix: str) -> None:
        data = clip(form=form, pitch=None if form == "avi" else 220.0)
        found = decode(data, f"a.{suffix}", LIMITS)
        assert (found.kind, found.width, found.height, found.normalised) == ("video", 64, 64, None)
        assert found.seconds == pytest.approx(1, abs=0.15)
        assert (found.channels is None) == (form == "avi")
        assert found.data == data

    @pytest.mark.parametrize(
        ("made", "name", "rule"),
        [
            pytest.param(lambda: clip()[:3_000], "a.mp4", "unreadable", id="truncated MP4, its index is at the end"),
            pytest.param(
                lambda: clip(form="webm", seconds=2, flicker=90)[:9_000], "a.webm", "truncated", id="truncated WebM"
            ),
            pytest.param(lambda: live(6), "a.webm", "too_long", id="too long, and its header has no duration"),
            pytest.param(lambda: live(0, form="avi"), "a.avi", "no_frames", id="AVI without frames"),
            pytest.param(lambda: live(0, form="mp4"), "a.mp4", "unreadable", id="MP4 without frames"),
            pytest.param(larger_than_stated, "a.webm", "truncated", id="frames that are larger than the header says"),
            pytest.param(clip, "a.webm", "wrong_suffix", id="MP4 called webm"),
            pytest.param(clip, "a.png", "wrong_suffix", id="MP4 called png"),
            pytest.param(lambda: clip(seconds=4), "a.mp4", "too_long", id="too long"),
            pytest.param(lambda: clip(side=128), "a.mp4", "too_large", id="many pixels"),
            pytest.param(lambda: b"\0\0\0\x18ftypmp42" + b"\0" * 90, "a.mp4", "unreadable", id="a header and no more"),
            pytest.param(lambda: b"#EXTM3U\nfile:///etc/passwd\n", "a.mp4", "unreadable", id="a playlist"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, made: Callable[[], bytes], name: str, rule: str) -> None:
        data = made()
        with pytest.raises(BadMediaError) as refused:
            decode(data, name, LIMITS)
        assert refused.value.rule == rule
        assert str(refused.value)

    def test_a_soundtrack_of_more_channels_than_asked_for_is_refused(self) -> None:
        with pytest.raises(BadMediaError, match="2: expected at most 1"):
            decode(clip(form="webm"), "a.webm", LIMITS.model_copy(update={"max_channels": 1}))


def test_frames_are_spread_over_the_video() -> None:
    data = clip(seconds=2)
    levels = [np.asarray(Image.open(io.BytesIO(frame)))[0, :, 0] for frame in frames_of(data, 4)]
    assert len(levels) == 4
    assert all(np.abs(one.astype(int) - other).mean() > 5 for one, other in itertools.pairwise(levels))
    assert len(frames_of(data, 99)) == 16


def test_the_soundtrack_is_heard() -> None:
    samples, rate = waveform(clip(pitch=440.0, seconds=2))
    assert rate == 48_000
    spectrum = np.abs(np.fft.rfft(samples[: 2 * rate]))
    assert np.argmax(spectrum) * rate / len(samples[: 2 * rate]) == pytest.approx(440, abs=5)
    with pytest.raises(ValueError, match="no sound"):
        waveform(clip(pitch=None))
    with pytest.raises(ValueError, match="no video of a known format"):
        frames_of(b"GIF89a", 1)


def test_videos_of_a_folder_become_vectors_of_their_frames(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, data in {"a.mp4": clip(1), "b.mp4": clip(1, flicker=60), "c.mp4": b"\0\0\0\x18ftyp"}.items():
        (folder / name).write_bytes(data)
    store = Store(tmp_path / "store")
    manifest = made("v", [read_media(Media(), source=locate_media(folder))], store, quarantine_budget=0.5)["media"]
    assert (manifest.count("rows"), manifest.count("quarantined")) == (2, 1)
    rows = store.scan(manifest.ref).collect()
    assert facts(rows.row(0, named=True))["format"].startswith("mp4, 64 x 64 pixels, 1.")
    model = load_model(ModelSpec(engine="vision", model="efficientnet-lite0"), threads=1)
    assert isinstance(model, ImageEmbedder)
    files = ProductFiles(model="media", product="media", folder=str(store.folder(manifest.ref)))
    named = rows.with_columns(item_id=pl.col("origin"))
    vectors = encode_videos.function(named, MediaEncoding(), model, media=files, encoder="e")["vector"].to_list()
    matrix = np.array(vectors)
    assert matrix.shape == (2, 2 * 1_280)
    assert matrix[1, 1_280:].sum() > matrix[0, 1_280:].sum()  # frames that flicker spread more
