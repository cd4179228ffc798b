from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import Command

from normloom.cli.machine.doctor import examine_store
from normloom.core.errors import StoreError
from normloom.settings.systems import system_names
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


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
        (
            "a.csv",
            "prompt\nПривет\n".encode("cp1251"),
            "a.csv: its only record cannot be used (broken_utf8; record 1: ",
        ),
        ("a.csv", "prompt\nhi\n".encode("utf-16")[:-1], "a.csv is not all utf-16: set source.encoding, or save it as"),
        ("a.csv", b'prompt\n"hi\nho\n', "a.csv: the record at line 2 is broken (unexpected end of data): close or"),
        ("a.jsonl", b'{"prompt": "h\n', "a.jsonl: its only record cannot be used (broken_json; record 1: Invalid"),
        ("a.jsonl", b'{"text": "hi"}\n', "a.jsonl has no column 'prompt': its columns are 'text'; name one of these"),
        ("a.json", b'[{"prompt": "hi"}', "a.json is not one JSON array ("),
        ("a.json", b'{\n"prompt": "hi"}', "a.json holds an object: expected a JSON array of objects"),
        ("a.parquet", b"PAR1", "a.parquet is damaged, cut short or not a Parquet file ("),
        ("a.xlsx", b"PK", "a.xlsx is damaged or not an Excel workbook"),
        ("a.docx", b"PK", "a.docx has the suffix '.docx': expected one of .csv, .tsv, .jsonl, .ndjson, .json, .txt"),
        (
            "a.csv",
            b'prompt\n" "\n' + b"x" * 100_000 + b"\n",
            "a.csv: none of its 2 records can be used (empty 1, too_l",
        ),
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


def test_actors_without_processors_are_told_of_before_any_work(command: Command) -> None:
    Path("empty.csv").touch()
    ran = command.build("--source", "empty.csv", "--set", "resources.actors=999")
    assert "they will share; --set resources.actors=" in ran.err


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
    there = ", ".join(system_names())
    assert "persodpo, persopilot, savacu" in there
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
    with pytest.raises(StoreError, match="No space left on device; free some space and rerun the command"):
        loom.run(stage, [first.ref], [])
    assert store.current("toy", "echo") is None
    assert not list((place / "store").rglob("*.tmp"))
    (place / "filler").unlink()
    manifest, reused = loom.run(stage, [first.ref], [])
    assert (manifest.count("rows"), reused) == (6, False)


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
