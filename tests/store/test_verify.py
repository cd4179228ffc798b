"""Damage to a store is found, named and made good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from normloom.cli.app import app
from normloom.core.errors import StoreError
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.store.layout import CURRENT, MANIFEST, part_marker
from normloom.store.locks.hold import Hold
from normloom.store.store import Store
from normloom.store.verify import PARENTS, Damage, repair, verify
from normloom.testing.toy import echo_stage, runner, words_stage

WORDS = words_stage(*"abcdef")
ECHO = echo_stage(WORDS, drop="b", part_rows=2)


@dataclass(frozen=True)
class Made:
    store: Store
    words: Manifest
    echo: Manifest

    @property
    def directory(self) -> Path:
        return self.store.table_directory(self.echo.ref)

    def file(self, part: int, kind: str = "rows") -> Path:
        return self.directory / self.echo.parts[part].files[kind].name  # type: ignore[index]


def build(store: Store) -> Made:
    words, _ = runner(store).run(WORDS, [], [])
    echo, _ = runner(store).run(ECHO, [words.ref], [])
    return Made(store, words, echo)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return build(Store(tmp_path / "store"))


def flip(path: Path, bit: int = 400) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text().replace(": ", ":")
    assert old in content
    path.write_text(content.replace(old, new))


def write_unsealed(made: Made, manifest: Manifest) -> None:
    """Write a manifest as a version before seals did."""
    (made.directory / MANIFEST).write_text(manifest.model_copy(update={"seal": ""}).model_dump_json())


DAMAGES: dict[str, tuple[Callable[[Made], object], str]] = {
    "a flipped bit": (lambda made: flip(made.file(1)), "part 1: rows-00001"),
    "a flipped bit of a ledger": (lambda made: flip(made.file(0, "dropped")), "part 0: dropped-00000"),
    "a deleted file": (lambda made: made.file(2).unlink(), "part 2: rows-00002"),
    "a cut file": (lambda made: made.file(0).write_bytes(made.file(0).read_bytes()[:-3]), "part 0: rows-00000"),
    "swapped files": (lambda made: swap(made.file(0), made.file(1)), "part 0: rows-00000"),
    "a cut manifest": (lambda made: (made.directory / MANIFEST).write_text("{"), "manifest.json cannot be read"),
    "another table's manifest": (
        lambda made: shutil.copy(made.store.table_directory(made.words.ref) / MANIFEST, made.directory / MANIFEST),
        "manifest.json is that of table toy/words",
    ),
    "a deleted part": (
        lambda made: list(map(Path.unlink, (made.file(1), part_marker(made.directory, 1)))),
        "part 1: part-00001.json is missing",
    ),
    "an edited manifest": (
        lambda made: edit(made.directory / MANIFEST, '"rows_in":6', '"rows_in": 7'),
        "manifest.json was edited: its seal differs",
    ),
    "a part that a manifest without a seal tells otherwise": (
        lambda made: write_unsealed(
            made,
            made.echo.model_copy(
                update={"parts": [made.echo.parts[0].model_copy(update={"attempts": 3}), *made.echo.parts[1:]]}
            ),
        ),
        "manifest.json was edited: part 0 is not as its own record says",
    ),
    "a manifest without a seal of other content": (
        lambda made: write_unsealed(made, made.echo.model_copy(update={"content": "0" * 20})),
        "manifest.json was edited: its content is not that of its parts",
    ),
    "a lost pointer's table": (
        lambda made: (made.directory.parent / CURRENT).write_text("0" * 20),
        "current points to a missing table",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_made_good_by_the_next_build(made: Made, damage: str) -> None:
    assert list(verify(made.store)) == []
    spoil, words = DAMAGES[damage]
    spoil(made)
    found = list(verify(made.store))
    assert words in str(found[0])
    assert {one.stage for one in found} == {"echo"}
    repair(made.store, found, Hold())
    again = build(Store(made.store.root))
    assert again.echo.content == made.echo.content
    assert list(verify(made.store)) == []
    assert made.store.current("toy", "echo") == made.store.manifest(again.echo.ref)


def test_repair_keeps_the_parts_that_are_intact(made: Made) -> None:
    kept = {part: made.file(part).stat().st_ino for part in (0, 2)}
    flip(made.file(1))
    repair(made.store, list(verify(made.store)), Hold())
    again = build(made.store)
    assert {part: again.file(part).stat().st_ino for part in kept} == kept


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 9), bit=st.integers(0, 10**6))
def test_no_flipped_bit_goes_unseen(made: Made, number: int, bit: int) -> None:
    stored = [(part.index, file.name) for part in made.echo.parts for file in part.stored]
    part, name = stored[number % len(stored)]
    path = made.directory / name
    whole = path.read_bytes()
    flip(path, bit)
    try:
        assert [(one.part, one.file) for one in verify(made.store, "toy")] == [(part, path.name)]
    finally:
        path.write_bytes(whole)


def test_a_stage_does_not_read_a_damaged_table(made: Made) -> None:
    directory = made.store.table_directory(made.words.ref)
    flip(directory / made.words.parts[0].files["rows"].name)
    further: Stage = echo_stage(WORDS, copies=2)
    remedy = r"table toy/words/.*, part 0: rows-.* is damaged: its checksum differs.*; run normloom verify toy --repair"
    with pytest.raises(StoreError, match=remedy):
        runner(Store(made.store.root)).run(further, [made.words.ref], [])
    with pytest.raises(StoreError, match=remedy):
        Store(made.store.root).scan(made.words.ref)


def test_a_deleted_file_is_not_called_a_table_that_was_never_built(made: Made) -> None:
    made.file(1).unlink()
    told = made.store.why_unreadable("toy", "echo")
    assert told == (
        f"table toy/echo/{made.echo.key}: files of its part 1 are missing or cut short; "
        "build toy again to make what is missing"
    )
    with pytest.raises(StoreError, match="files of its part 1 are missing"):
        made.store.manifest(made.echo.ref)
    again = build(made.store)
    assert again.echo.content == made.echo.content


def test_the_command_lists_damage_and_fails_until_it_is_repaired(made: Made) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--store", str(made.store.root)])
        return result.exit_code, " ".join(result.output.split())

    assert run("verify") == (0, "All files are intact.")
    flip(made.file(1))
    code, output = run("verify", "toy")
    assert code == 1
    assert f"damaged table toy/echo/{made.echo.key}, part 1: rows-00001" in output
    assert "damaged" not in run("tables")[1]  # its size is right: what a reading command would say costs a checksum
    code, output = run("verify", "--repair")
    assert code == 0
    assert output.endswith("1 damaged, removed; to rebuild them: normloom build toy")
    assert run("verify")[0] == 0


def test_a_table_of_parents_that_are_not_there_is_made_from_its_first_part_on(made: Made) -> None:
    damage = Damage(system="toy", stage="echo", key=made.echo.key, part=None, file=PARENTS, problem="are not there")
    repair(made.store, [damage], Hold())
    assert [path.name for path in made.directory.glob("part-*.json")] == []
    again = build(Store(made.store.root))
    assert again.echo.content == made.echo.content
    assert again.echo.work
    assert again.echo.work.parts == 3
