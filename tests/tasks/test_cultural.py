"""Memes, replies and figures of the cross-cultural evaluation, step by step."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from normloom.core.errors import ConfigError, SourceError
from normloom.readers import locate
from normloom.tasks.cultural.answers import ScoredAnswers, answer_scored, read_answers
from normloom.tasks.cultural.cell_figures import cell_figures
from normloom.tasks.cultural.exemplars import back_check, exemplars
from normloom.tasks.cultural.grid import Cells, grid
from normloom.tasks.cultural.group_figures import country_figures
from normloom.tasks.cultural.memes import Memes, _position, judgements, read_memes
from normloom.tasks.cultural.parse import letter_of
from normloom.testing import language_model

COUNTRIES = {"us": "en", "de": "de"}
HEADER = "meme_id,template,text_en,text_de,label_us,label_de\n"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("a", "a"),
        (" B.", "b"),
        ("(b)", "b"),
        ("b: Not hate speech", "b"),
        ("a\nbecause it attacks people", "a"),
        ("The answer is b.", "b"),
        ('I choose "a"', "a"),
        ("a meme about cats", ""),
        ("It is a joke", ""),
        ("Answer: a) or b)", "ab"),
        ("", ""),
        ("abc", ""),
    ],
)
def test_the_letter_of_a_reply(reply: str, letter: str) -> None:
    assert letter_of(reply) == letter


def test_records_that_cannot_be_used_are_quarantined_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "memes.csv"
    path.write_text(
        HEADER + "1,t,One <sep> two,Eins,0,1\n1,t,x,x,0,0\n,t,x,x,0,0\n2,t,x,x,maybe,0\n3,,Three,,1,0\n4,t,x,x,1,1\n"
    )
    made = read_memes.function(Memes(limit=2), source=locate(str(path)), countries=COUNTRIES)
    assert made.quarantined["rule"].to_list() == ["repeated_id", "missing_id", "unknown_label"]
    assert "label_us is 'maybe', expected 0 or 1" in made.quarantined["reason"][2]
    assert made.dropped["reason"].to_list() == ["limit"]
    assert made.rows["meme_id"].to_list() == ["1", "3"]
    assert made.rows["template"].to_list() == ["t", "3"]
    assert made.rows["texts"].to_list() == [
        [{"language": "en", "text": "One\ntwo"}, {"language": "de", "text": "Eins"}],
        [{"language": "en", "text": "Three"}],  # what is left out is in no row
    ]
    path.write_text(HEADER + "1,t,x,x,0,0\n2,t,x," + "y" * 30 + ",0,0\n")
    long = read_memes.function(Memes(max_chars=20), source=locate(str(path)), countries=COUNTRIES).quarantined
    assert long["rule"].to_list() == ["too_long"]
    assert long["reason"][0].startswith("record 2: column 'text_de': ")
    path.write_text(HEADER + ",t,x,x,0,0\n")
    with pytest.raises(SourceError, match="its only record cannot be used"):
        read_memes.function(Memes(), source=locate(str(path)), countries=COUNTRIES)


def memes(labels: list[tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "row_id": f"m{number}",
                "meme_id": str(number),
                "labels": [{"country": "us", "label": us}, {"country": "de", "label": de}],
            }
            for number, (us, de) in enumerate(labels)
        ],
        schema_overrides={"labels": pl.List(pl.Struct({"country": pl.String, "label": pl.Int8}))},
    )


def test_a_label_is_held_to_what_most_raters_say(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(
        "rater_id,group,meme_id,hateful\n"
        "1,US,0,1\n2,US,0,1\n3,US,0,0\n"  # most say 1
        "3,US,0,1\n"  # the same rater again
        "4,DE,0,1\n5,DE,0,0\n"  # a tie
        "6,US,1,nonsense\n"
        "7,US,no meme,1\n"
    )
    made = judgements.function(memes([(1, 1), (0, 0)]), ratings=locate(str(path)))
    assert made.metrics == {"ratings": 5, "ratings_left_out": 3}
    told = made.rows.select("meme_id", "country", "raters", "hateful", "is_majority").rows()
    assert told == [
        ("0", "us", 3, 2, True),
        ("0", "de", 2, 1, None),
        ("1", "us", None, None, None),
        ("1", "de", None, None, None),
    ]


def test_replies_of_a_file_are_held_to_the_memes_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "replies.csv"
    path.write_text("meme_id,prompt_no,reply\n0,0,a\n0,1,b\n0,1,a\n7,0,a\n1,x,a\n1,5,b\n")
    made = read_answers.function(memes([(1, 1), (0, 0)]), source=locate(str(path)), entrant="m")
    assert made.quarantined["rule"].to_list() == ["repeated", "unknown_meme", "missing"]
    told = made.rows.select("meme_id", "wording", "option_order", "raw_reply").rows()
    assert told == [
        ("0", "0", "hateful_first", "a"),
        ("0", "0", "harmless_first", "b"),
        ("1", "2", "harmless_first", "b"),
    ]


def test_replies_about_other_memes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replies.csv"
    path.write_text("meme_id,prompt_no,reply\n7,0,a\n")
    with pytest.raises(SourceError, match=r"replies.csv: none of 1 replies is about one of 2 memes"):
        read_answers.function(memes([(1, 1), (0, 0)]), source=locate(str(path)), entrant="m")


def replies(answers: list[tuple[str, str, str, int | None]]) -> pl.DataFrame:
    """Return parsed replies in German from meme, prompt language, order and answer."""
    return pl.DataFrame(
        [
            {
                "row_id": f"r{number}",
                "item_id": f"{meme}:de",
                "meme_id": meme,
                "language": "de",
                "shot": "zero",
                "prompt_language": prompt_language,
                "text_version": "original",
                "option_order": order,
                "wording": "own",
                "model": "m",
                "answer": answer,
            }
            for number, (meme, prompt_language, order, answer) in enumerate(answers)
        ],
        schema_overrides={"answer": pl.Int8},
    )


def test_figures_of_a_cell_by_hand() -> None:
    """Six memes, hateful in Germany if even: the native prompt is right but for one, the English one says always 1."""
    both = ("hateful_first", "harmless_first")
    truth = [(1, int(number % 2 == 0)) for number in range(6)]
    said: list[tuple[str, str, str, int | None]] = [
        (str(number), language, order, answer)
        for number in range(6)
        for order in both
        for language, answer in (("native", truth[number][1] if number else int(order == both[0])), ("english", 1))
    ]
    judged = judgements.function(memes(truth), ratings=None).rows
    made = cell_figures.function(replies(said), judged, native=(("de", "de"),)).rows
    found = {(row["metric"], row["axis"]): row["value"] for row in made.iter_rows(named=True)}
    native, english = (f"zero shot, {language} prompt, original text" for language in ("native", "english"))
    assert found["accuracy", native] == pytest.approx(11 / 12)
    assert found["position_flips", native] == pytest.approx(1 / 6)
    assert found["position_flips", english] == 0
    assert found["accuracy", english] == found["accuracy_of_majority", english] == 0.5
    of_native = (2 * 5 / (2 * 5 + 1) + 2 * 6 / (2 * 6 + 1)) / 2  # five true, one missed; six true, one false alarm
    of_english = (2 * 6 / (2 * 6 + 6) + 0) / 2
    assert found["macro_f1", native] == pytest.approx(of_native)
    assert found["macro_f1_change", "native prompt"] == pytest.approx(of_native - of_english)


def items(*rows: tuple[str, str, str, int, str]) -> pl.DataFrame:
    """Return items from meme, language, text, label and split."""
    return pl.DataFrame(
        [
            {
                "row_id": f"{meme}:{language}",
                "item_id": f"{meme}:{language}",
                "meme_id": meme,
                "language": language,
                "text": text,
                "translation": None if language == "en" else f"{text} in English",
                "label": label,
                "split": split,
            }
            for meme, language, text, label, split in rows
        ],
        schema_overrides={"label": pl.Int8, "translation": pl.String},
    )


def vectors(rows: pl.DataFrame, places: dict[str, list[float]]) -> pl.DataFrame:
    held = pl.Series("vector", [places[name] for name in rows["item_id"]], dtype=pl.List(pl.Float32))
    return rows.select("row_id", "item_id", held)


def test_the_nearest_training_meme_of_the_wanted_label_is_the_example() -> None:
    rows = items(
        ("1", "de", "near and harmless", 0, "train"),
        ("2", "de", "far and harmless", 0, "train"),
        ("3", "de", "hateful", 1, "train"),
        ("8", "de", "asked first", 1, "test"),
        ("9", "de", "asked second", 0, "test"),
        ("9", "en", "without training memes", 0, "test"),
    )
    places = {"1:de": [1.0, 0.0], "2:de": [0.0, 1.0], "3:de": [0.6, 0.8]}
    places |= {name: [0.8, 0.6] for name in ("8:de", "9:de", "9:en")}
    made = exemplars.function(rows, vectors(rows, places)).rows
    assert made.select("item_id", "shot_id").rows() == [("8:de", "1:de"), ("9:de", "3:de")]
    assert made["cosine"].to_list() == pytest.approx([0.8, 0.96])


def test_texts_far_from_their_translation_are_marked() -> None:
    rows = items(*((str(meme), language, "x", 0, "test") for meme in range(4) for language in ("en", "de")))
    places = {f"{meme}:{language}": [1.0, 0.0] for meme in range(4) for language in ("en", "de")}
    made = back_check.function(rows, vectors(rows, places | {"2:de": [0.0, 1.0]}))
    assert made.filter("lowest").select("item_id", "cosine").rows() == [("2:de", 0.0)]


def test_a_language_without_its_prompt_is_refused() -> None:
    rows = items(("1", "fr", "bonjour", 0, "test"))
    with pytest.raises(ConfigError, match=r"template 'cultural' has no section \[instruction fr\]"):
        grid.function(rows, Cells(), exemplars.function(rows, vectors(rows, {"1:fr": [1.0, 0.0]})).rows)


def test_an_item_without_an_example_has_no_one_shot_cells() -> None:
    rows = items(("1", "en", "x", 0, "test"), ("2", "en", "y", 0, "test"))
    example = pl.DataFrame([{"item_id": "2:en", "shot_id": "2:en", "shot_text": "y", "shot_label": 0}])
    made = grid.function(rows, Cells(), example).rows
    shots = made.group_by("item_id").agg(pl.col("shot").unique().sort()).sort("item_id")
    assert shots["shot"].to_list() == [["zero"], ["one", "zero"]]


def test_a_country_without_ratings_has_no_alpha(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("rater_id,group,meme_id,hateful\n1,US,0,1\n2,US,0,1\n")
    rows = judgements.function(memes([(1, 1), (0, 0)]), ratings=None).rows
    told = country_figures.function(rows, ratings=locate(str(path))).rows.filter(metric="alpha", of="de")
    assert told["undefined"].to_list() == ["no ratings"]


def test_a_question_with_a_picture_needs_the_pictures() -> None:
    rows = items(("1", "en", "x", 0, "test"))
    places = pl.DataFrame([{"meme_id": "1", "language": "en", "media_id": "m", "shard": "s", "offset": 0, "size": 1}])
    example = pl.DataFrame(schema={"item_id": pl.String})
    asked = grid.function(rows, Cells(), example, places).rows
    asked = asked.with_columns(row_id=pl.lit("q"))
    with pytest.raises(ValueError, match="a question shows the picture m, and no media are given"):
        answer_scored.function(asked, ScoredAnswers(), language_model(), entrant="m")


def test_a_template_has_one_place_between_0_and_1() -> None:
    places = [_position(name) for name in ("drake", "doge", "drake")]
    assert places[0] == places[2] != places[1]
    assert all(0 <= place < 1 for place in places)
