"""Sources of each system in CSV and JSON lines, whose numbers, lists and missing values are written as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest

from normloom.core.errors import SourceError
from normloom.core.stage import Output
from normloom.readers import locate, read_source
from normloom.tasks.cultural.answers import read_answers
from normloom.tasks.cultural.memes import Memes, ratings_of, read_memes
from normloom.tasks.personas.utterances import TOKENS, ReadUtterances, read_utterances
from normloom.tasks.preferences.evaluation import read_evaluated
from normloom.tasks.preferences.prompts import PersonaPrompts, read_prompts
from normloom.tasks.preferences.replies import read_replies, released_signals
from normloom.tasks.prompts.ingest import label_names
from normloom.tasks.tradeoff.axis_sets import ReadAxisSet, read_axis_set
from normloom.tasks.tradeoff.recorded_wins import read_judged

SIGNALS = {"coherence": 0.5, "consistency": 1, "utterance_entailment": 2, "persona_distance": 0.2}
PROMPTS = pl.DataFrame({"prompt_id": ["p", "q"], "dialogue": ["d", "e"], "row_id": ["1", "2"], "split": "train"})
REPLY = '{"response": "hi"}'


def csv(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as CSV, lists as JSON."""
    texts = [{key: json.dumps(one) if isinstance(one, list) else str(one) for key, one in row.items()} for row in rows]
    pl.DataFrame(texts).write_csv(folder / "rows.csv")
    return folder / "rows.csv"


def lines(folder: Path, *rows: object) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return folder / "rows.jsonl"


def reasons(made: Output) -> list[tuple[str, str]]:
    assert made.quarantined is not None
    return made.quarantined.select("rule", "reason").rows()


class TestTyped:
    """What `Source` says of columns whose values are of several types, or written as text."""

    def test_a_number_among_texts_leaves_the_texts_as_they_are(self, tmp_path: Path) -> None:
        path = lines(tmp_path, {"id": "a", "say": 'x "y"'}, {"id": 2, "say": ["z"]}, {"id": None, "say": None})
        read = read_source(path, text_column=None, keep=("id", "say"))
        assert read.mixed == {"id", "say"}
        assert read.text("id").to_list() == ["a", "2", None]
        assert read.text("say").to_list() == ['x "y"', '["z"]', None]
        assert read.lists("say").to_list() == [['x "y"'], ["z"], None]

    @pytest.mark.parametrize(
        ("written", "number"),
        [("2", 2.0), (" 0.5 ", 0.5), ("True", 1.0), ("false", 0.0), ("n/a", None), ("", None)],
    )
    def test_numbers_are_read_from_texts(self, tmp_path: Path, written: str, number: float | None) -> None:
        read = read_source(lines(tmp_path, {"n": written}, {"n": "1"}), text_column=None, keep=("n",))
        assert read.numbers("n").to_list() == [number, 1.0]

    def test_labels_of_several_types_have_no_quotes(self) -> None:
        assert label_names('"fear"') == ["fear"]


class TestPersoDpo:
    def test_an_empty_cell_is_a_missing_value(self, tmp_path: Path) -> None:
        row = {"prompt_id": "p", "persona": "I row.", "context": "Hi.", "split": "", "reference": ""}
        made = read_prompts.function(PersonaPrompts(), source=locate(csv(tmp_path, [row])))
        assert made.rows.select("split", "reference").rows() == [("train", None)]
        rows = [{"gen_id": "a", "prompt_id": "p", "model": model, "raw_reply": ""} for model in ("m", " ")]
        replies = read_replies.function(PROMPTS, source=locate(csv(tmp_path, rows)), limited=False)
        assert replies.rows["gen_id"].to_list() == ["a"]
        assert reasons(replies) == [("missing", "record 2: column 'model' has no value")]

    def test_a_signal_that_is_no_number_costs_one_signal(self, tmp_path: Path) -> None:
        path = csv(tmp_path, [{"gen_id": "a", **SIGNALS}, {"gen_id": "b", **SIGNALS, "coherence": "n/a"}])
        parsed = pl.DataFrame({"row_id": ["1", "2"], "gen_id": ["a", "b"], "parse_status": "ok"})
        made = released_signals.function(parsed, source=locate(path))
        assert made.rows.height == 7
        assert reasons(made) == [("out_of_range", "coherence has no number, expected 0.0 to 1.0")]

    def test_every_record_of_a_file_of_policies_is_accounted_for(self, tmp_path: Path) -> None:
        whole = {"policy": "a", "prompt_id": "p", "raw_reply": REPLY, **SIGNALS, "seconds": ""}
        path = lines(
            tmp_path,
            whole,
            {**whole, "prompt_id": "q", "coherence": "n/a"},
            {**whole, "policy": ""},
            {**whole, "prompt_id": "r"},
            whole,
            "{broken",
        )
        made = read_evaluated.function(PROMPTS, source=locate(path))
        assert made.attempts == 6
        assert made.rows.select("policy", "coherence", "seconds").rows() == [("a", 0.5, None)]
        expected = ["out_of_range", "missing", "unknown_prompt", "repeated", "broken_json"]
        assert [rule for rule, _ in reasons(made)] == expected

    def test_an_empty_response_of_a_policy_is_a_failure(self, tmp_path: Path) -> None:
        row = {"policy": "a", "prompt_id": "p", "raw_reply": REPLY, **SIGNALS}
        path = csv(tmp_path, [{**row, "sheet_response": "hi"}, {**row, "prompt_id": "q", "sheet_response": ""}])
        made = read_evaluated.function(PROMPTS, source=locate(path))
        assert made.rows["valid"].to_list() == [True, False]


class TestOthers:
    def test_preferences_are_numbers_also_in_csv(self, tmp_path: Path) -> None:
        row = {"model": "m", "baseline_reply": "a", "model_reply": "b"}
        given = ["2.0", "1", "1.5", "", "7"]
        rows = [{**row, "instruction": str(n), "preference": one} for n, one in enumerate(given)]
        made = read_judged.function(source=locate(csv(tmp_path, rows)), judge="j")
        expected = [(1.0, "ok"), (0.0, "ok"), (0.5, "ok"), (None, "empty")]
        assert made.rows.select("value", "parse_status").rows() == expected
        assert reasons(made) == [
            ("unknown_preference", "record 5: preference is '7', expected 0, 1, 1.5, 2 or none"),
        ]

    def test_lists_of_replies_are_json_in_csv(self, tmp_path: Path) -> None:
        row = {
            "axis": "kind",
            "prompt": "Why?",
            "reference": ["So.", "Thus."],
            "bad_reference": "No!",
            "split": "Train",
        }
        made = read_axis_set.function(ReadAxisSet(), source=locate(csv(tmp_path, [row])), layout="axes")
        expected = (["So.", "Thus."], ["No!"], "train")
        assert made.rows.select("reference", "bad_reference", "given_split").rows() == [expected]

    def test_a_number_is_a_reply_too(self, tmp_path: Path) -> None:
        rows = {"axis": "kind", "prompt": 5, "reference": 5}, {"axis": 1, "prompt": "b", "reference": ["c"]}
        made = read_axis_set.function(ReadAxisSet(), source=locate(lines(tmp_path, *rows)), layout="axes")
        assert made.rows.select("axis", "prompt", "reference").rows() == [("kind", "5", ["5"]), ("1", "b", ["c"])]

    def test_tokens_and_places_are_json_in_csv(self, tmp_path: Path) -> None:
        row = {"tokens": ["I", "like", "tea"], "head": [0], "tail": [2], "relation": "likes"}
        rows = [row, {**row, "tail": ["x"]}, {**row, "tail": [3]}, {**row, "tokens": "I like"}]
        made = read_utterances.function(ReadUtterances(), source=locate(csv(tmp_path, rows)), columns=TOKENS)
        assert made.rows.select("tokens", "subject", "object").rows() == [(["I", "like", "tea"], [0], [2])]
        assert [rule for rule, _ in reasons(made)] == ["no_span"] * 3

    def test_memes_ratings_and_replies_share_ids_of_several_types(self, tmp_path: Path) -> None:
        rows = {"meme_id": 1, "text_en": "a", "label_us": True}, {"meme_id": "b", "text_en": "", "label_us": "0"}
        memes = read_memes.function(Memes(), source=locate(lines(tmp_path, *rows)), countries={"us": "en"}).rows
        assert memes["meme_id"].to_list() == ["1", "b"]
        rating = {"rater_id": 1, "group": " US", "hateful": 1.0}
        given = locate(lines(tmp_path, {**rating, "meme_id": 1}, {**rating, "meme_id": "b"}))
        rated, _ = ratings_of(given, ["Us"])
        assert rated.select("meme_id", "country", "hateful").rows() == [("1", "Us", 1), ("b", "Us", 1)]
        with pytest.raises(SourceError, match=r"none of 2 ratings can be used: .* one of de, fr, found 'US'"):
            ratings_of(given, ["de", "fr"])
        path = lines(tmp_path, *({"meme_id": one, "reply": "a", "prompt_no": 0.0} for one in (1, "b")))
        read = read_answers.function(memes.with_columns(row_id="meme_id"), source=locate(path), entrant="m")
        assert read.rows["meme_id"].to_list() == ["1", "b"]
