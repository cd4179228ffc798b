"""Types of columns, told to `datasets` by the card."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import datasets
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import normloom as nl
from normloom.core.contract import Contract
from normloom.core.errors import UsageError
from normloom.core.stage import Output, Stage
from normloom.exports.export import export
from normloom.exports.features import arrow_schema, features, media_kind
from normloom.exports.tables import _by_split, _json
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import Words

PLAIN = (
    pl.String(),
    pl.Boolean(),
    pl.Int8(),
    pl.Int64(),
    pl.UInt64(),
    pl.Float32(),
    pl.Float64(),
    pl.Date(),
    pl.Datetime("us"),
    pl.Datetime("us", "UTC"),
    pl.Duration("us"),
    pl.Binary(),
    pl.Null(),
)
TYPES = st.recursive(
    st.sampled_from(PLAIN),
    lambda inner: (
        inner.map(pl.List)
        | st.dictionaries(st.sampled_from(["role", "content", "score"]), inner, min_size=1).map(pl.Struct)
    ),
    max_leaves=4,
)


@given(kinds=st.lists(TYPES, min_size=1, max_size=4))
def test_features_of_any_types_are_those_that_datasets_finds(kinds: list[pl.DataType]) -> None:
    schema = arrow_schema({f"column {number}": kind for number, kind in enumerate(kinds)})
    told = datasets.Features._from_yaml_list(features(schema, {}))
    assert told == datasets.Features.from_arrow_schema(schema)


def test_texts_have_the_types_that_every_reader_knows() -> None:
    schema = arrow_schema({"kind": pl.Enum(["a", "b"]), "text": pl.String(), "pair": pl.Array(pl.Float32, 2)})
    assert [str(field.type) for field in schema] == ["string", "string", "list<element: float>"]
    assert schema.field("pair").type == pa.list_(pa.field("element", pa.float32()))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n", "image"),
        (b"\xff\xd8\xff\xe0", "image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio"),
        (b"fLaC", "audio"),
        (b"OggS", "audio"),
        (b"ID3\4", "audio"),
        (b"PK\3\4", None),
        (b"", None),
    ],
)
def test_pictures_and_sound_are_known_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert media_kind([None, head]) == kind


MEDIA = pl.Struct({"bytes": pl.Binary, "path": pl.String})
PICTURED = Contract(columns={"picture": MEDIA, "sound": MEDIA, "at": pl.Datetime("us", "UTC"), "day": pl.Date()})


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def pictured(arguments: Words) -> Output:
    """Return a row for each word: a picture, a sound (the first has none), a moment and a day."""
    rows = pl.DataFrame(
        {
            "picture": [{"bytes": png(), "path": f"{word}.png"} for word in arguments.words],
            "sound": [None, *({"bytes": b"fLaC", "path": "a.flac"} for _ in arguments.words[1:])],
            "at": [datetime(2026, 11, 27, 12, tzinfo=UTC)] * len(arguments.words),
            "day": [date(2026, 11, 27)] * len(arguments.words),
            "content": arguments.words,
            "parents": [[] for _ in arguments.words],
        },
        schema_overrides={"picture": MEDIA, "sound": MEDIA},
    )
    return Output(rows=rows, attempts=rows.height)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    contract = Contract(columns=PICTURED.columns, nullable=frozenset({"sound"}))
    stage = Stage(name="pictures", function=pictured, arguments=Words(words=("a", "b")), contract=contract)
    built(store, stage, build=build_id(1), system="gallery")
    return store


def test_embedded_pictures_and_sound_are_features_and_open(store: Store, tmp_path: Path) -> None:
    export(store, "gallery", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.features["picture"] == datasets.Image()
    assert loaded.features["sound"] == datasets.Audio()
    picture = loaded.select_columns("picture")[1]["picture"]
    assert (picture.size, picture.getpixel((0, 0))) == ((3, 2), (255, 0, 0))
    plain = loaded.select_columns(["at", "day"])[0]
    assert plain == {"at": datetime(2026, 11, 27, 12, tzinfo=UTC), "day": date(2026, 11, 27)}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `picture` | `image` |" in card


def test_text_formats_refuse_bytes(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"column 'picture' of pictures holds bytes, which jsonl cannot hold: use"):
        export(store, "gallery", tmp_path / "out", format="jsonl")
    assert list(tmp_path.iterdir()) == [store.root]


def test_csv_has_every_type_that_it_can_hold_as_text(tmp_path: Path) -> None:
    schema = {"took": pl.Duration("us"), "at": pl.Time(), "price": pl.Decimal(10, 2), "scores": pl.List(pl.Float64)}
    values = [timedelta(seconds=1.5), time(1, 2), Decimal("1.50"), [1.0, float("nan")]]
    rows = pl.DataFrame([values], schema, orient="row")
    store = Store(tmp_path / "store")
    built(store, nl.table(rows), build=build_id(1), system="times")
    export(store, "times", tmp_path / "out", format="csv")
    written = pl.read_csv(tmp_path / "out" / "data" / "default" / "train.csv", infer_schema=False).drop("row_id")
    assert written.rows() == [("PT1.5S", "01:02:00.000000000", "1.50", "[1.0, null]")]


def test_names_of_splits_that_can_name_no_file_make_one_file() -> None:
    for names in (["train", "a/b"], ["train", None]):
        frame = pl.DataFrame({"split": names})
        [(name, rows)] = _by_split(frame)
        assert (name, rows.equals(frame)) == ("train", True)
    assert [name for name, _ in _by_split(pl.DataFrame({"split": ["test", "train"]}))] == ["test", "train"]


@pytest.mark.parametrize("value", [pl.Series(["é"]), ["é"]])
def test_nested_values_are_json_in_a_table_of_text(value: object) -> None:
    assert _json(value) == '["é"]'
