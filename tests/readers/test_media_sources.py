"""Images and sound of our own making: what can be decoded is taken as it is, what cannot is refused with a reason."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from normloom.core.errors import SourceError, StoreError
from normloom.readers.media import (
    BadMediaError,
    MediaFolder,
    MediaLimits,
    Pack,
    decode,
    entries,
    image_of,
    locate_media,
)
from normloom.readers.media.decode import perceptual_hash

LIMITS = MediaLimits(max_pixels=1_000_000, max_seconds=10)


def noise(seed: int = 0, *, width: int = 48, height: int = 32) -> Image.Image:
    """Return smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tone(seconds: float = 0.5, *, channels: int = 1, form: str = "WAV", rate: int = 8_000) -> bytes:
    wave = np.sin(np.arange(round(seconds * rate)) * 0.3)
    stream = io.BytesIO()
    sf.write(stream, np.stack([wave] * channels, axis=1) if channels > 1 else wave, rate, format=form)
    return stream.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    return encoded(noise(), "JPEG", exif=exif)


def animated() -> bytes:
    return encoded(noise(0), "GIF", save_all=True, append_images=[noise(1), noise(2)])


def bomb() -> bytes:
    return encoded(Image.new("1", (20_000, 20_000)))


def lacking(data: bytes, share: float = 0.5) -> bytes:
    return data[: int(len(data) * share)]


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    seen = image_of(encoded(image))
    assert (seen.mode, seen.getpixel((0, 0)), seen.getpixel((1, 0))) == ("RGB", (200, 0, 0), (255, 255, 255))


class TestDecode:
    @pytest.mark.parametrize(
        ("make", "name", "rule"),
        [
            pytest.param(lambda: b"", "a.png", "empty", id="0 bytes"),
            pytest.param(lambda: b"hello world", "a.png", "unreadable", id="text"),
            pytest.param(lambda: b"BM" + bytes(60), "a.bmp", "unreadable", id="a header of BMP and zeros"),
            pytest.param(lambda: lacking(encoded(noise())), "a.png", "truncated", id="truncated PNG"),
            pytest.param(lambda: lacking(encoded(noise(), "JPEG"), 0.9), "a.jpg", "truncated", id="truncated JPEG"),
            pytest.param(lambda: encoded(noise()), "a.jpg", "wrong_suffix", id="PNG called jpg"),
            pytest.param(tone, "a.flac", "wrong_suffix", id="WAV called flac"),
            pytest.param(tone, "a.png", "wrong_suffix", id="sound called png"),
            pytest.param(bomb, "a.png", "too_large", id="decompression bomb"),
            pytest.param(lambda: encoded(noise(width=1_200, height=1_000)), "a.png", "too_large", id="many pixels"),
            pytest.param(animated, "a.gif", "animated", id="animated"),
            pytest.param(lambda: tone(0), "a.wav", "no_sound", id="0 seconds"),
            pytest.param(lambda: tone(channels=8), "a.wav", "too_many_channels", id="8 channels"),
            pytest.param(lambda: tone(11), "a.wav", "too_long", id="too long"),
            pytest.param(lambda: lacking(tone()), "a.wav", "truncated", id="truncated WAV"),
            pytest.param(lambda: lacking(tone(form="FLAC")), "a.flac", "unreadable", id="truncated FLAC"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, make: Callable[[], bytes], name: str, rule: str) -> None:
        with pytest.raises(BadMediaError) as refused:
            decode(make(), name, LIMITS)
        assert refused.value.rule == rule
        assert str(refused.value)

    @pytest.mark.parametrize(
        ("make", "said", "size"),
        [
            pytest.param(lambda: encoded(noise().convert("CMYK"), "JPEG"), "CMYK to RGB", (48, 32), id="CMYK"),
            pytest.param(rotated, "rotated upright (EXIF)", (32, 48), id="rotated"),
            pytest.param(
                lambda: encoded(Image.fromarray(np.linspace(0, 65_535, 600).reshape(20, 30).astype(np.uint16))),
                "I;16 to L",
                (30, 20),
                id="16 bit",
            ),
        ],
    )
    def test_what_can_be_normalised_is_and_says_so(
        self, make: Callable[[], bytes], said: str, size: tuple[int, int]
    ) -> None:
        found = decode(make(), "", LIMITS)
        assert found.normalised == said
        assert (found.width, found.height) == size == image_of(found.data).size
        assert found.format == "png"
        again = decode(found.data, "a.png", LIMITS)
        assert again.normalised is None
        assert again.data == found.data

    def test_16_bits_keep_their_order(self) -> None:
        levels = np.linspace(0, 65_535, 256).reshape(16, 16).astype(np.uint16)
        found = decode(encoded(Image.fromarray(levels)), "", LIMITS)
        assert np.asarray(image_of(found.data))[..., 0].ravel().tolist() == list(range(256))

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
    def test_images_keep_their_bytes(self, form: str) -> None:
        data = encoded(noise(), form)
        found = decode(data, f"a.{form.lower()}", LIMITS)
        assert (found.kind, found.width, found.height, found.normalised) == ("image", 48, 32, None)
        assert found.data == data

    @pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
    def test_sounds(self, form: str) -> None:
        found = decode(tone(0.5, form=form), f"a.{form.lower()}", LIMITS)
        assert (found.kind, found.sample_rate, found.channels) == ("sound", 8_000, 1)
        assert found.seconds == pytest.approx(0.5, abs=0.01)

    @settings(max_examples=60)
    @given(cut=st.integers(0, 400), flips=st.lists(st.integers(0, 10_000), max_size=6))
    def test_damaged_bytes_are_decoded_or_refused(self, cut: int, flips: list[int]) -> None:
        for data, name in ((encoded(noise()), "a.png"), (tone(0.02), "a.wav")):
            damaged = bytearray(data[: len(data) - cut] or b"\0")
            for flip in flips:
                damaged[flip % len(damaged)] ^= 1 + flip % 255
            try:
                found = decode(bytes(damaged), name, LIMITS)
            except BadMediaError:
                continue
            assert found.data


class TestPerceptualHash:
    def test_scaled_and_compressed_images_are_near_and_others_are_not(self) -> None:
        image = noise(3, width=400, height=300)
        small = Image.open(io.BytesIO(encoded(image.resize((200, 150)), "JPEG", quality=60)))
        hashes = [perceptual_hash(one) or 0 for one in (image, small, noise(4, width=400, height=300))]
        assert (hashes[0] ^ hashes[1]).bit_count() <= 3
        assert (hashes[0] ^ hashes[2]).bit_count() > 15

    def test_a_blank_image_has_none(self) -> None:
        assert perceptual_hash(Image.new("RGB", (64, 64), "red")) is None


class TestSources:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "in" / "deep").mkdir(parents=True)
        (tmp_path / "in" / "a.png").write_bytes(encoded(noise(1)))
        (tmp_path / "in" / "deep" / "b.wav").write_bytes(tone())
        (tmp_path / "in" / "notes.txt").write_text("not a medium")
        (tmp_path / "outside.png").write_bytes(encoded(noise(2)))
        return tmp_path / "in"

    def read(self, path: Path, **options: Any) -> list[tuple[str, bytes | str]]:
        found: list[tuple[str, bytes | str]] = []
        for entry in entries(locate_media(path, **options), most=1_000_000):
            try:
                found.append((entry.origin, entry.read()))
            except BadMediaError as error:
                found.append((entry.origin, error.rule))
        return found

    def test_a_folder_is_searched_to_any_depth(self, folder: Path) -> None:
        assert [origin for origin, _ in self.read(folder)] == ["a.png", "deep/b.wav"]

    def test_a_link_that_leads_out_is_refused(self, folder: Path) -> None:
        (folder / "c.png").symlink_to(folder.parent / "outside.png")
        assert dict(self.read(folder))["c.png"] == "outside_folder"
        assert isinstance(dict(self.read(folder, outside=True))["c.png"], bytes)

    @pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
    def test_paths_in_a_table_start_at_its_folder(self, folder: Path, form: str) -> None:
        table = pl.DataFrame(
            {"path": ["a.png", "../outside.png", "/etc/passwd", "gone.png", None], "who": list("abcde")}
        )
        path = folder / f"table.{form}"
        write: dict[str, Callable[[Path], object]] = {
            "csv": table.write_csv,
            "jsonl": table.write_ndjson,
            "parquet": table.write_parquet,
        }
        write[form](path)
        found = [data if isinstance(data, str) else "read" for _, data in self.read(path)]
        assert found == ["read", "outside_folder", "outside_folder", "missing_file", "missing_file"]
        assert [data for _, data in self.read(path, outside=True)][1] == (folder.parent / "outside.png").read_bytes()
        assert next(one.beside for one in entries(locate_media(path), keep=("who",), most=9)) == {"who": "a"}

    def test_bytes_in_parquet_and_columns_of_hugging_face(self, tmp_path: Path) -> None:
        picture = encoded(noise())
        pl.DataFrame({"image": [picture, None]}).write_parquet(tmp_path / "bytes.parquet")
        assert [data for _, data in self.read(tmp_path / "bytes.parquet")] == [picture, "missing_file"]
        held = [{"bytes": picture, "path": "x.png"}, {"bytes": None, "path": None}]
        pl.DataFrame({"image": held}).write_parquet(tmp_path / "features.parquet")
        assert [data for _, data in self.read(tmp_path / "features.parquet")] == [picture, "missing_file"]

    @pytest.mark.parametrize("form", ["parquet", "feather", "jsonl"])
    @pytest.mark.parametrize("nested", [True, False])
    def test_files_that_a_table_leads_to_are_part_of_its_digest(self, folder: Path, form: str, *, nested: bool) -> None:
        value = {"path": "a.png", "bytes": None} if nested else "a.png"
        table, path = pl.DataFrame({"image": [value]}), folder / f"table.{form}"
        write: dict[str, Callable[[Path], object]] = {
            "parquet": table.write_parquet,
            "feather": table.write_ipc,
            "jsonl": table.write_ndjson,
        }
        write[form](path)
        before = locate_media(path)
        assert [data for _, data in self.read(path)] == [(folder / "a.png").read_bytes()]
        (folder / "a.png").write_bytes(encoded(noise(7)))
        assert locate_media(path).digest != before.digest

    def test_bytes_in_parquet_are_held_to_a_size_and_columns_to_be_there(self, tmp_path: Path) -> None:
        pl.DataFrame({"image": [encoded(noise())]}).write_parquet(tmp_path / "bytes.parquet")
        source = locate_media(tmp_path / "bytes.parquet")
        [entry] = entries(source, most=10)
        with pytest.raises(BadMediaError, match="bytes: expected at most 10"):
            entry.read()
        with pytest.raises(SourceError, match=r"bytes.parquet has no column 'who': it has image"):
            list(entries(source, keep=("who",), most=10))

    def test_records_that_cannot_be_read_are_accounted_for_by_their_numbers(self, folder: Path) -> None:
        (folder / "table.jsonl").write_text('{"path": "gone.png", "who": "a"}\n{broken\n{"path": 7, "who": 8}\n')
        found = []
        for entry in entries(locate_media(folder / "table.jsonl"), keep=("who",), most=10):
            with pytest.raises(BadMediaError) as raised:
                entry.read()
            found.append((entry.origin, raised.value.rule, entry.beside.get("who")))
        assert found == [
            ("record 1", "missing_file", "a"),
            ("record 2", "broken_json", None),
            ("record 3", "missing_file", "8"),
        ]

    def test_a_path_that_leads_to_a_folder_cannot_be_read(self, folder: Path) -> None:
        (folder / "table.csv").write_text("path\ndeep\n")
        [entry] = entries(locate_media(folder / "table.csv"), most=1_000_000)
        with pytest.raises(BadMediaError, match="deep is not a regular file: copy its content into one"):
            entry.read()

    def test_folders_in_an_archive_are_passed_over(self, folder: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "all.tar", "w") as archive:
            archive.add(folder, "all")  # with an entry of its own for each folder
        assert [origin for origin, _ in self.read(tmp_path / "all.tar")] == [
            "all.tar/all/a.png",
            "all.tar/all/deep/b.wav",
        ]

    def test_a_data_set_saved_by_hugging_face(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"image": [noise(1), noise(2)], "n": [1, 2]})
        data = data.cast_column("image", datasets.Image())
        data.to_parquet(str(tmp_path / "data.parquet"))
        found = list(entries(locate_media(tmp_path / "data.parquet"), keep=("n",), most=1_000_000))
        assert [entry.beside["n"] for entry in found] == [1, 2]
        assert decode(found[0].read(), found[0].name, LIMITS).width == 48

    def test_a_column_of_sounds_saved_by_hugging_face(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        held = [{"bytes": tone(), "path": "a.wav"}, {"bytes": tone(form="FLAC"), "path": None}]
        data = datasets.Dataset.from_dict({"audio": held, "text": ["x", "y"]})
        data = data.cast_column("audio", datasets.Audio(decode=False))
        data.to_parquet(str(tmp_path / "data.parquet"))
        found = list(entries(locate_media(tmp_path / "data.parquet"), keep=("text",), most=1_000_000))
        assert [(entry.name, entry.beside["text"]) for entry in found] == [("a.wav", "x"), ("", "y")]
        assert [decode(entry.read(), entry.name, LIMITS).format for entry in found] == ["wav", "flac"]

    def test_archives_and_texts_next_to_media(self, tmp_path: Path) -> None:
        members = {
            "1.png": encoded(noise(1)),
            "1.txt": b"one",
            "2.png": encoded(noise(2)),
            "2.txt": b"two",
            "x.json": b"{}",
        }
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        for shard, names in (("s-0.tar", ("1.png", "1.txt")), ("s-1.tar.gz", ("2.txt", "2.png", "x.json"))):
            with tarfile.open(tmp_path / shard, "w:gz" if shard.endswith("gz") else "w") as tar:
                for name in names:
                    member = tarfile.TarInfo(name)
                    member.size = len(members[name])
                    tar.addfile(member, io.BytesIO(members[name]))
        for source in (tmp_path / "all.zip", tmp_path / "s-*.tar*"):
            found = [
                (one.read(), one.beside["txt"]) for one in entries(locate_media(source), keep=("txt",), most=10**6)
            ]
            assert found == [(members["1.png"], "one"), (members["2.png"], "two")]

    def test_members_of_archives_that_are_damaged_or_too_large_cost_their_own_rows(self, tmp_path: Path) -> None:
        small, large = encoded(noise(1)), encoded(noise(2, width=400, height=400))
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for name, data in (("1.png", small), ("2.png", encoded(noise(3)))):
                archive.writestr(name, data)
        whole = (tmp_path / "all.zip").read_bytes()
        broken = whole.index(encoded(noise(3))) + 40
        (tmp_path / "all.zip").write_bytes(whole[:broken] + bytes([whole[broken] ^ 255]) + whole[broken + 1 :])
        assert [data for _, data in self.read(tmp_path / "all.zip")] == [small, "unreadable"]
        with tarfile.open(tmp_path / "all.tar", "w") as tar:
            for name, data in (("1.png", small), ("2.png", large)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        found = []
        for one in entries(locate_media(tmp_path / "all.tar"), keep=(), most=len(small)):
            try:
                found.append(one.read())
            except BadMediaError as error:
                found.append(error.rule.encode())
        assert found == [small, b"too_large"]

    def test_a_damaged_archive_is_one_clear_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(SourceError, match=r"bad\.zip cannot be read"):
            self.read(tmp_path / "bad.zip")

    def test_a_table_without_a_column_of_media_says_which_it_has(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("who,what\nx,y\n")
        with pytest.raises(SourceError, match=r"none of the columns image, audio.*it has who, what"):
            locate_media(tmp_path / "a.csv")

    def test_the_digest_is_of_the_media_too(self, folder: Path) -> None:
        (folder / "t.csv").write_text("path\na.png\n")
        before = [locate_media(folder).digest, locate_media(folder / "t.csv").digest]
        (folder / "a.png").write_bytes(encoded(noise(9)))
        after = [locate_media(folder).digest, locate_media(folder / "t.csv").digest]
        assert before[0] != after[0]
        assert before[1] != after[1]


class TestPack:
    def test_each_medium_is_stored_once_and_read_by_its_place(self, tmp_path: Path) -> None:
        media = {f"{n:032x}": bytes([n]) * (n * 700 + 1) for n in range(9)}
        with Pack(tmp_path, shard_bytes=6_000) as pack:
            places = {name: pack.add(name, "png", data) for name, data in media.items()}
            assert pack.add("0" * 32, "png", b"\0") == places["0" * 32]
        folder = MediaFolder(tmp_path)
        assert {name: folder.read(place._asdict()) for name, place in places.items()} == media
        shards = sorted(tmp_path.glob("*.tar"))
        assert len(shards) > 1
        with tarfile.open(shards[0]) as tar:
            member = tar.next()
            assert member is not None
            assert member.name == f"{0:032x}.png"

    def test_a_shard_that_is_cut_short_is_an_error(self, tmp_path: Path) -> None:
        with Pack(tmp_path) as pack:
            place = pack.add("a", "png", b"x" * 1_000)
        [shard] = tmp_path.glob("*.tar")
        shard.write_bytes(shard.read_bytes()[:700])
        with pytest.raises(StoreError, match="ends before byte"):
            MediaFolder(tmp_path).read(place._asdict())
        shard.unlink()
        with pytest.raises(StoreError, match=r"\.tar cannot be read \(No such file or directory\)"):
            MediaFolder(tmp_path).read(place._asdict())
