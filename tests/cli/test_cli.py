from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import SCRIPTED_COMMAND

from normloom.cli.app import main
from normloom.cli.common import out
from normloom.cli.doctor import examine_store
from normloom.core.errors import StoreError
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What a failed command says: one line that begins with the program's name."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("normloom: ")
        assert self.out == ""
        return lines[0].removeprefix("normloom: ")


class Command:
    """The real command in this process, in a directory of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str) -> Ran:
        self.monkeypatch.setattr(sys, "argv", ["normloom", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, *self.capsys.readouterr())

    def build(self, *arguments: str) -> Ran:
        return self("build", "savacu", *SCRIPTED_COMMAND, *arguments)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys, monkeypatch)


def parquet() -> bytes:
    path = Path("whole.parquet")
    pl.DataFrame({"prompt": ["hello there"] * 50}).write_parquet(path)
    return path.read_bytes()


def test_a_missing_file_stops_before_any_work(command: Command) -> None:
    ran = command.build("--source", "prompts.csv")
    assert ran.code == 2
    assert ran.sentence == "prompts.csv does not exist: check the name and the working directory"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "a.csv is empty: expected at least one record"),
        ("a.csv", b"prompt\n", "a.csv has no records: expected at least one"),
        ("a.csv", b"promt,id\nhi,1\n", "a.csv has no column 'prompt': its columns are 'promt', 'id'; did you mean"),
        ("a.csv", b"[prompt],[/b]\nhi,1\n", "a.csv has no column 'prompt': its columns are '[prompt]', '[/b]'; did"),
        ("a.csv", b"pr\xffmpt\nhi\n", "a.csv: the header is not UTF-8: set source.encoding"),
        ("a.csv", "prompt\nПривет\n".encode("cp1251"), "a.csv: none of 1 records can be used (broken_utf8: record 1, "),
        ("a.csv", "prompt\nhi\n".encode("utf-16")[:-1], "a.csv is not all utf-16: set source.encoding, or save it as"),
        ("a.csv", b'prompt\n"hi\nho\n', "a.csv: the record at line 2 is broken (unexpected end of data): close or"),
        ("a.jsonl", b'{"prompt": "h\n', "a.jsonl: none of 1 records can be used (broken_json: record 1, Invalid"),
        ("a.jsonl", b'{"text": "hi"}\n', "a.jsonl has no column 'prompt': its columns are 'text'; name one of these"),
        ("a.json", b'[{"prompt": "hi"}', "a.json is not one JSON array ("),
        ("a.json", b'{\n"prompt": "hi"}', "a.json holds an object: expected a JSON array of objects"),
        ("a.parquet", b"PAR1", "a.parquet is damaged, cut short or not a Parquet file ("),
        ("a.xlsx", b"PK", "a.xlsx is damaged or not an Excel workbook"),
        ("a.docx", b"PK", "a.docx has the suffix '.docx': expected one of .csv, .tsv, .jsonl, .ndjson, .json, .txt"),
        ("a.csv", b'prompt\n" "\n' + b"x" * 100_000 + b"\n", "a.csv: none of 2 records can be used (empty 1, too_l"),
    ],
)
def test_a_file_that_cannot_be_used_stops_before_any_work(
    command: Command, name: str, content: bytes, sentence: str
) -> None:
    Path(name).write_bytes(content)
    ran = command.build("--source", name, "--store", "store")
    assert ran.code == 2
    assert ran.sentence.startswith(sentence)
    assert not Path("store").exists()


def test_a_truncated_parquet_file_stops_before_any_work(command: Command) -> None:
    content = parquet()
    for size in (len(content) // 2, len(content) - 1):
        Path("a.parquet").write_bytes(content[:size])
        ran = command.build("--source", "a.parquet")
        assert ran.code == 2
        assert ran.sentence.startswith("a.parquet is damaged, cut short or not a Parquet file (")


def test_an_empty_folder_stops_before_any_work(command: Command) -> None:
    assert command.build("--source", ".").sentence == "the folder . has no file that can be read: it is empty"


def test_a_wrong_text_column_is_answered_with_the_right_one(command: Command) -> None:
    Path("a.csv").write_text("Prompt,id\nhi,1\n")
    ran = command.build("--source", "a.csv", "--text-column", "promts")
    assert (ran.code, ran.sentence) == (
        2,
        "a.csv has no column 'promts': its columns are 'Prompt', 'id'; did you mean 'Prompt'?",
    )


def test_an_unknown_reference_column_is_answered_with_the_right_one(command: Command) -> None:
    Path("a.csv").write_text("prompt,harm\nhi,None\n")
    ran = command.build("--source", "a.csv", "--set", "source.references.safety=hram")
    assert (ran.code, ran.sentence) == (
        2,
        "a.csv has no column 'hram': its columns are 'prompt', 'harm'; did you mean 'harm'?",
    )


@pytest.mark.parametrize("name", ["naïve 😀.csv", 'it\'s "so": [x] #1.csv', "a\\b\tc.csv", "- 1.csv"])
def test_a_file_may_have_any_name(command: Command, name: str) -> None:
    Path(name).write_text("ask\nhi\n")
    ran = command.build("--source", name)
    assert (ran.code, ran.err.splitlines()[0][:10]) == (2, "normloom: ")
    assert "has no column 'prompt': its columns are 'ask'" in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "classify.delta=1.5"], "setting classify.delta: input should be less than 1, not 1.5"),
        (["--set", "classify.dleta=0.5"], "unknown setting classify.dleta, did you mean delta?"),
        (["--set", "clasify.delta=0.5"], "unknown setting clasify, did you mean classify?"),
        (
            ["--set", "split.train=0.5"],
            "split: train, validation and test must add up to 1, not 0.7",
        ),
        (["--set", "classify.delta"], "--set 'classify.delta': expected name=value, such as classify.delta=0.4"),
        (
            ["--profile", "lokal"],
            "unknown profile 'lokal'; available: cpu, gpu, hosted, local, ollama, paper, replay, vllm-cpu, or the",
        ),
        (
            ["--profile", "my.yaml"],
            "unknown profile 'my.yaml'; available: cpu, gpu, hosted, local, ollama, paper, replay, vllm-cpu, or ",
        ),
        (
            ["--set", "source.references.taste=x"],
            "source.references: unknown dimension 'taste'; available: safety",
        ),
        (["--set", "templates=nowhere"], "setting templates: nowhere is not a folder"),
        (["--set", "models.judge.engine=vlm"], "model 'j': unknown engine 'vlm'; available: "),
        (["--set", "taxonomies=nowhere"], "nowhere/safety.csv: expected a CSV file with the columns id,name,group,d"),
    ],
)
def test_a_wrong_setting_stops_before_any_work(command: Command, arguments: list[str], sentence: str) -> None:
    ran = command.build("--set", "classify.route=exhaustive", *arguments)
    assert ran.code == 2
    assert ran.sentence.startswith(sentence)
    assert not Path("store").exists()


def test_an_unknown_system_is_answered_with_those_there_are(command: Command) -> None:
    ran = command("build", "savaku")
    there = (
        "benchmark, cross_align, cross_cultural, demo_safetybench, misaligntrade, missing_modality, persodpo, savacu"
    )
    assert (ran.code, ran.sentence) == (2, f"unknown system 'savaku'; available: {there}, or the path of a Python file")


@pytest.mark.parametrize("arguments", [["build"], ["weave"], ["build", "savacu", "--limit", "0"], ["query"]])
def test_a_command_that_is_not_understood_has_exit_code_2(command: Command, arguments: list[str]) -> None:
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: " in ran.err


def test_a_store_that_cannot_be_written_stops_before_any_work(command: Command) -> None:
    Path("file").write_text("")
    for store in ("file", "file/store"):
        ran = command.build("--store", store)
        assert ran.code == 2
        assert ran.sentence == f"{Path(store).absolute()} cannot be written: give --store a writable directory"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Any]:
    """Mount a small file system in memory; the options are those of mount."""
    place = tmp_path / "mounted"
    place.mkdir()
    mounted = []

    def on(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    if not Path("/bin/mount").exists():
        pytest.skip("there is no mount command here")
    yield on
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_store_stops_before_any_work(command: Command, mount: Any) -> None:
    place = mount("ro,size=64k")
    ran = command.build("--store", str(place / "store"))
    assert (ran.code, ran.sentence) == (
        2,
        f"{place / 'store'} cannot be written: give --store a writable directory",
    )
    assert examine_store(place).state == "broken"


def test_a_full_disk_fails_with_advice_and_the_build_goes_on_when_there_is_room(mount: Any) -> None:
    place = mount("size=128k")
    store, words = Store(place / "store"), words_stage(*"abcdef")
    stage, loom = echo_stage(words), runner(store)
    first, _ = loom.run(words, [], [])
    with pytest.raises(OSError, match="No space left"):
        (place / "filler").write_bytes(b"x" * 2**20)
    with pytest.raises(StoreError, match="No space left on device; free some space and run the same command again"):
        loom.run(stage, [first.ref], [])
    assert store.current("toy", "echo") is None
    assert not list((place / "store").rglob("*.tmp"))
    (place / "filler").unlink()
    manifest, reused = loom.run(stage, [first.ref], [])
    assert (manifest.count("rows"), reused) == (6, False)


@pytest.fixture
def toy_store(command: Command) -> Path:  # noqa: ARG001  # which gives the test its directory
    """A store with a system of two stages, where commands look for it."""
    words = words_stage("[one]", "two", "[/three]")
    loom = runner(Store(Path("store")))
    manifest, _ = loom.run(words, [], [])
    loom.run(echo_stage(words, drop="two"), [manifest.ref], [])
    return Path("store")


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


def test_version_help_and_module(command: Command) -> None:
    ran = command("--version")
    assert (ran.code, ran.out) == (0, f"normloom {version('normloom')}\n")
    assert command("build", "-h").out == command("build", "--help").out
    module = subprocess.run([sys.executable, "-m", "normloom", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == ran.out


def test_a_shell_completes_systems_and_profiles() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_NORMLOOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "from normloom.cli.app import app; app(prog_name='normloom')"
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    assert completed("normloom build mis") == ["misaligntrade", "missing_modality"]
    assert completed("normloom plan savacu --profile l") == ["local"]


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


def test_tables_of_an_empty_store_say_what_to_do(command: Command) -> None:
    ran = command("tables")
    assert (ran.code, ran.sentence) == (
        2,
        f"no tables in {Path('store').absolute()}: run normloom build first",
    )
    assert command("tables", "nothing").sentence.startswith("no tables of nothing in ")
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
