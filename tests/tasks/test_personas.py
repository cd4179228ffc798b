from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
from scalars import number

from normloom.core.errors import SourceError
from normloom.readers import locate
from normloom.schemas.people.persona_tables import UNKNOWN
from normloom.tasks.personas.assist import parsed
from normloom.tasks.personas.chat.reading import topic_of
from normloom.tasks.personas.classifier import Classifier, predict
from normloom.tasks.personas.community import personas, recommendations
from normloom.tasks.personas.extractor import hashed, relation_features, token_features
from normloom.tasks.personas.facts import ReadFacts, persona_texts, read_facts, read_labels
from normloom.tasks.personas.figures import _by_user
from normloom.tasks.personas.rounds import Replaying, rounds
from normloom.tasks.personas.utterances import TEXTS, ReadUtterances, read_utterances

FACTS = """username,task,topic,relation,object
ada,Leisure,Book,likes,maps
ada,Leisure,Sport,avoids,Rain
ada,Leisure,Book,likes,rain
bob,Leisure,Book,likes,maps
bob,Leisure,Book,likes,bees
cyd,Leisure,Book,likes,bees
cyd,Leisure,Book,enjoys,tea
ada,Leisure,Book,likes,maps
,Leisure,Book,likes,maps
"""


def known(tmp_path: Path, text: str = FACTS) -> pl.DataFrame:
    path = tmp_path / "facts.csv"
    path.write_text(text)
    made = read_facts.function(ReadFacts(), source=locate(str(path)))
    return made.rows.with_columns(row_id=pl.format("f{}", pl.int_range(pl.len())))


def test_facts_without_a_value_and_those_there_already_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(FACTS)
    made = read_facts.function(ReadFacts(limit=6), source=locate(str(path)))
    assert made.quarantined.select("rule", "reason").rows() == [
        ("repeated_fact", "record 8: ada, Leisure, Book, likes, maps is there already"),
        ("missing_value", "record 9: no username"),
    ]
    assert (made.rows.height, made.dropped["reason"].to_list(), made.attempts) == (6, ["limit"], 9)


def test_a_file_without_a_usable_fact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("username,task,topic,relation,object\nada,,,,\n")
    with pytest.raises(SourceError, match="its only record cannot be used \\(missing_value; record 1: no task\\)"):
        read_facts.function(ReadFacts(), source=locate(str(path)))


def test_personas_are_listed_shared_and_contradicted(tmp_path: Path) -> None:
    topics = pl.DataFrame({"task": ["Leisure"], "topic": ["Book"]})
    made = personas.function(known(tmp_path), topics).rows
    told = {(row["username"], row["object"]): row for row in made.iter_rows(named=True)}
    assert (told["ada", "maps"]["n_seen"], told["cyd", "tea"]["n_seen"]) == (2, 1)
    assert told["ada", "Rain"]["contradicts"] == ["likes"]
    assert told["ada", "rain"]["contradicts"] == ["avoids"]
    assert told["bob", "maps"]["contradicts"] == []
    assert not told["ada", "Rain"]["listed"]
    assert told["ada", "maps"]["listed"]


def test_recommendations_are_what_most_others_have_and_a_user_has_not(tmp_path: Path) -> None:
    topics = pl.DataFrame({"task": ["Leisure"], "topic": ["Book"]})
    known_ = personas.function(known(tmp_path), topics).rows
    made = recommendations.function(known_).rows
    assert made.filter(username="ada").select("rank", "relation", "object", "users").rows() == [
        (1, "likes", "bees", 2),
        (2, "enjoys", "tea", 1),
    ]
    assert made.filter(username="cyd").select("rank", "object", "users").rows() == [(1, "maps", 2), (2, "rain", 1)]
    assert made.filter(username="ada")["parents"].list.len().to_list() == [2, 1]


def test_labels_of_people_without_facts_are_listed_as_dropped(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("classification_task,username,label\nT,ada,yes\nT,bob,no\nT,zoe,no\nU,ada,never\nT,ada,no\n")
    made = read_labels.function(known(tmp_path), source=locate(str(path)))
    assert made.rows.select("classification_task", "username", "accepted").rows() == [
        ("T", "ada", True),
        ("T", "bob", False),
        ("U", "ada", True),
    ]
    assert made.dropped["reason"].to_list() == ["no facts"]
    assert '"zoe"' in made.dropped["payload"][0]
    assert made.quarantined["rule"].to_list() == ["repeated_label"]
    assert made.attempts == 5
    assert made.rows["persona"][1] == "likes maps likes bees"


def test_persona_texts_follow_the_table() -> None:
    frame = pl.DataFrame(
        {"username": ["a", "b", "a"], "relation": ["has_hobby", "x", "plays"], "object": ["a_b", "y", "z"]}
    )
    assert persona_texts(frame).rows() == [("a", "has hobby a b plays z"), ("b", "x y")]


class TestClassifier:
    def test_nearest_side_and_confidence_by_hand(self) -> None:
        # One word in common with one accepted user, none with the declined one: d is 0, so confidence is 1.
        found = predict(["tents", "chess"], [True, False], ["tents", "chess", "soup"])
        assert found.accepts.tolist() == [True, False, False]
        assert found.confidence.tolist() == [1.0, 1.0, 0.0]
        assert found.likeness.tolist() == [1.0, 1.0, 0.0]

    def test_the_nearest_user_of_a_side_and_the_words_shared(self) -> None:
        # "tents" is in two of three personas, so it weighs less than "lakes".
        classifier = Classifier(["tents lakes", "tents chess", "yarn"], [True, True, False])
        assert classifier.nearest("lakes tents", accepted=True) == (0, ["lakes", "tents"])
        assert classifier.nearest("lakes tents", accepted=False) == (None, [])
        assert Classifier(["the of"], [True]).nearest("the", accepted=True) == (None, [])

    def test_a_tie_is_declined(self) -> None:
        found = predict(["tents chess", "tents chess"], [True, False], ["tents"])
        assert (found.accepts.tolist(), found.confidence.tolist()) == ([False], [0.0])

    def test_one_side_alone_and_stop_words_alone(self) -> None:
        assert predict(["tents"], [True], ["tents"]).accepts.tolist() == [True]
        assert predict(["the of"], [True], ["the"]).accepts.tolist() == [False]


def labelled(count: int = 16) -> pl.DataFrame:
    draw = random.Random(3)
    words = {True: ["tent", "lake", "fire", "hill"], False: ["sofa", "film", "yarn", "chess"]}
    rows = [
        {"row_id": f"{n:032x}", "classification_task": "T", "username": f"u{n}", "accepted": n % 2 == 0}
        for n in range(count)
    ]
    return pl.DataFrame([{**row, "persona": " ".join(draw.sample(words[row["accepted"]], 2))} for row in rows])  # type: ignore[index]  # a bool


class TestRounds:
    def test_no_prediction_saw_its_label_and_every_label_is_learned_once(self) -> None:
        made = rounds.function(labelled(), Replaying()).rows
        for (_strategy,), own in made.group_by("strategy"):
            asked = own.filter("asked")
            assert sorted(asked["username"]) == sorted(own.filter(round=1)["username"])
            for row in own.iter_rows(named=True):
                learned = asked.filter(pl.col("round") < row["round"])["username"].to_list()
                assert row["username"] not in learned
                assert len(row["parents"]) == row["labelled"] + 1
                assert row["labelled"] == 4 + len(learned)

    def test_other_labels_change_no_prediction_before_they_are_learned(self) -> None:
        frame = labelled()
        first = rounds.function(frame, Replaying()).rows.filter(round=1, strategy="uncertain")
        last = rounds.function(frame, Replaying()).rows.filter(strategy="uncertain").sort("round")["username"][-1]
        flipped = frame.with_columns(accepted=pl.col("accepted") ^ (pl.col("username") == last))
        again = rounds.function(flipped, Replaying()).rows.filter(round=1, strategy="uncertain")
        told = ("username", "predicted", "confidence", "asked")
        assert again.select(told).equals(first.select(told))

    def test_the_least_sure_are_asked_first(self) -> None:
        made = rounds.function(labelled(), Replaying()).rows.filter(strategy="uncertain", round=1)
        assert made.filter("asked")["confidence"].max() <= made.filter(~pl.col("asked"))["confidence"].min()  # type: ignore[operator]

    def test_a_task_with_too_few_labels_has_no_rounds(self) -> None:
        assert rounds.function(labelled(3), Replaying()).rows.is_empty()

    def test_a_round_weighs_as_much_as_any_other(self) -> None:
        rows = pl.DataFrame(
            {
                "round": [1, 1, 2],
                "username": ["a", "b", "b"],
                "predicted": [True, True, False],
                "accepted": [True, False, False],
            }
        )
        counts = _by_user(rows)
        assert counts.rows() == [("a", 0.5, 0.5), ("b", 1.0, 1.5)]
        assert number(counts["right"].sum()) / number(counts["all"].sum()) == (1 / 2 + 1) / 2  # the mean of both rounds


class TestAssistant:
    SHOWN = ("f1", "f2")

    def test_a_reply_is_read(self) -> None:
        told = parsed('Sure: {"score": 0.7, "reason": " They camp. ", "facts": [2, 2]} done', list(self.SHOWN))
        assert told == {"score": 0.7, "reason": "They camp.", "cited": ["f2"], "parse_status": "ok"}

    @pytest.mark.parametrize(
        "reply",
        [
            "maybe",
            '{"score": 0.5}',
            '{"score": 2, "reason": "x"}',
            '{"score": true, "reason": "x"}',
            '{"score": "0.5", "reason": "x"}',
            '{"score": 0.5, "reason": "x", "facts": [3]}',
            '{"score": 0.5, "reason": "x", "facts": "all"}',
            '{"score": 0.5, "reason": "x",}',
            "{}",
        ],
    )
    def test_a_failure_is_null_and_never_a_middle_value(self, reply: str) -> None:
        told = parsed(reply, list(self.SHOWN))
        assert told == {"score": None, "reason": None, "cited": [], "parse_status": "bad_format"}

    def test_no_reply_is_empty(self) -> None:
        assert parsed("  ", list(self.SHOWN))["parse_status"] == "empty"


class TestExtraction:
    def test_spans_of_plain_texts_are_found(self, tmp_path: Path) -> None:
        path = tmp_path / "said.csv"
        path.write_text(
            "text,subject,object,relation\nI have a Dog.,I,a dog,pet\nI swim,I,chess,like\n,I,x,like\nHm,,hm,\n"
        )
        made = read_utterances.function(ReadUtterances(), source=locate(str(path)), columns=TEXTS)
        [row] = made.rows.iter_rows(named=True)
        assert (row["tokens"], row["subject"], row["object"]) == (["I", "have", "a", "Dog", "."], [0], [2, 3])
        assert made.quarantined["rule"].to_list() == ["no_span", "missing_value", "missing_value"]

    def test_features_name_what_stands_around(self) -> None:
        [first, second] = token_features(["I", "swim"])
        assert {"w=i", "+1=swim", "-1=<edge>", "0,+1=i swim"} <= set(first)
        assert {"w=swim", "end=wim", "-1=i", "+1=<edge>"} <= set(second)
        assert relation_features(["I", "swim"], [1]) == ["w=i", "w=swim", "p=i swim", "o=swim", "before=i"]
        assert hashed([["a", "b"], []], 1024).sum(axis=1).ravel().tolist() == [[2.0, 0.0]]


def test_a_topic_is_unknown_if_nothing_is_known_or_only_stop_words_are() -> None:
    facts = pl.DataFrame({"task": ["Leisure"], "topic": ["Book"], "relation": ["is"], "object": ["the"]})
    assert topic_of(facts, "Leisure", "likes maps", margin=0) == UNKNOWN
    assert topic_of(facts, "Work", "likes maps", margin=0) == UNKNOWN
    known = facts.with_columns(object=pl.lit("maps"))
    assert topic_of(known, "Leisure", "likes maps", margin=0) == "Book"
