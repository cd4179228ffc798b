"""A row taken back: dropped at its source, made without it downstream, gone from the store after a purge."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import normloom as nl
from normloom.cli.app import app
from normloom.core.errors import StoreError, UsageError
from normloom.core.rows.forgotten import text_hash
from normloom.core.run import Run
from normloom.core.stage import Output, Stage, published_stage
from normloom.core.table import Manifest
from normloom.history.exports import ExportRecord, write_export
from normloom.history.removal.forget import ask, forget
from normloom.history.removal.purge import purge
from normloom.lineage.trace import trace
from normloom.run.build import BuildRequest, reuse
from normloom.store.forgotten import FOLDER, deny_list
from normloom.store.layout import BUILDS
from normloom.store.parts import Writer
from normloom.store.stale import stale_stages
from normloom.store.store import Store
from normloom.tasks.prompts.take import take
from normloom.testing import made, scripted
from normloom.testing.toy import ECHOES

SECRET = "Ada lives in 7 Mill Lane, Ely"
PROMPTS = [f"How do I write letter number {number}?" for number in range(12)]
PROMPTS[4] = SECRET
DRAFTS = nl.Contract(columns=dict.fromkeys(("prompt", "kind", "draft"), pl.String()))


@nl.step(makes={"prompt": pl.String, "kind": pl.String, "draft": pl.String}, part_rows=3, fan_out=nl.each())
def draft(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    """Quote the prompt, as a model's answer may."""
    assert model
    return rows.with_columns(draft="Re: " + pl.col("prompt") + ". Done.")


@nl.step(makes={"prompt": pl.String}, part_rows=4)
def kept(rows: pl.DataFrame) -> Output:
    """Keep the first of every two rows; the other loses to it."""
    first, second = rows.gather_every(2), rows.gather_every(2, 1)
    lost = nl.dropped_rows(second, reason="half", winner=pl.lit(first["row_id"][0]))
    return Output(rows=first.select("row_id", "prompt"), dropped=lost)


@nl.step(makes={"loss": pl.Float64}, files="weights")
def learn(rows: pl.DataFrame, run: Run) -> Output:
    (run.files / "weights.bin").write_text("|".join(rows["prompt"]))
    curve = pl.DataFrame(
        {"loss": [0.5], "content": ["0"], "parents": [[]]}, schema_overrides={"parents": ECHOES.schema["parents"]}
    )
    return Output(rows=curve, attempts=1)


def flow(prompts: list[str] = PROMPTS) -> list[Stage]:
    source = nl.table(pl.DataFrame({"prompt": prompts, "kind": ["letter"] * len(prompts)}))
    drafted = draft(source, model=scripted())
    return [kept(drafted), learn(drafted)]


def build(store: Store, prompts: list[str] = PROMPTS) -> dict[str, Manifest]:
    return made("toy", flow(prompts), store)


def borrow(store: Store) -> dict[str, Manifest]:
    table = store.current("toy", "draft")
    assert table
    return made("other", [take(published_stage(table.ref, reader="other"), limit=6, contract=DRAFTS)], store)


def secret_row(store: Store, stage: str = "table") -> str:
    table = store.current("toy", stage)
    assert table
    return str(store.scan(table.ref).filter(prompt=SECRET).select("row_id").collect().item())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    build(store)
    borrow(store)
    return store


def test_all_that_came_of_a_row_is_shown_in_every_system_and_old_table(store: Store) -> None:
    old = {stage: table.key for stage, table in build(store, [*PROMPTS, "And one more letter?"]).items()}
    row = secret_row(store)
    asked = ask(store, [row])
    assert [source.model_dump() for source in asked.reach.sources] == [
        {"system": "toy", "stage": "table", "row_id": row}
    ]
    followed = {found.row_id for system in ("toy", "other") for found in trace(store, row, forward=True).rows if system}
    assert asked.reach.ids == followed
    held = {(one.table.system, one.table.stage, one.newest): one for one in asked.reach.held}
    assert set(held) == {
        (*place, newest)
        for place in [("toy", "table"), ("toy", "draft"), ("toy", "kept"), ("toy", "learn")]
        for newest in (True, False)
    } | {("other", "take", True)}
    assert (held["toy", "table", True].rows, held["toy", "draft", True].rows, held["toy", "learn", True].learned) == (
        1,
        1,
        1,
    )
    assert {one.table.key for one in asked.reach.newest() if one.table.system == "toy"} == set(old.values())
    assert asked.texts == [text_hash(SECRET)]
    assert ask(store, [secret_row(store, "draft")]).reach.ids == asked.reach.ids  # a row made of it stands for it


def test_the_next_build_drops_it_with_the_reason_and_makes_only_its_parts(store: Store) -> None:
    row, before = secret_row(store), store.current("toy", "draft")
    assert before
    entry = forget(store, ask(store, [row]), reason="withdrawn by its author")
    content = (store.root / FOLDER / f"{entry.forgetting}.json").read_text()
    assert SECRET not in content
    assert "Mill Lane" not in content
    assert json.loads(content)["reason"] == "withdrawn by its author"
    assert stale_stages(store, "toy").keys() == {"table", "draft", "kept", "learn"}

    tables = build(store)
    [dropped] = store.scan(tables["table"].ref, "dropped").collect().to_dicts()
    assert dropped == {
        "row_id": row,
        "reason": "forgotten",
        "winner": None,
        "payload": json.dumps({"reason": "withdrawn by its author"}),
    }
    assert tables["table"].attempts == 12
    assert tables["draft"].work
    assert (tables["draft"].work.parts, len(tables["draft"].parts)) == (1, 4)
    assert store.scan(tables["draft"].ref).collect()["prompt"].to_list() == [one for one in PROMPTS if one != SECRET]
    assert stale_stages(store, "toy") == {}
    assert build(store, list(reversed(PROMPTS)))["table"].dropped_by == {"forgotten": 1}


def test_the_text_is_dropped_from_every_source_in_whatever_case_and_ledger(store: Store) -> None:
    forget(store, ask(store, texts=[f"  {SECRET.upper()}\n"]), reason="take-down 7")
    other = nl.table(
        [
            {"prompt": SECRET.lower(), "turns": ["x"]},
            {"prompt": "y", "turns": ["Hi!", SECRET]},
            {"prompt": "z", "turns": []},
        ]
    )
    table = made("third", [other], store)["table"]
    assert table.dropped_by == {"forgotten": 2}
    assert store.scan(table.ref).collect()["prompt"].to_list() == ["z"]


def test_tables_that_hold_it_are_not_taken_as_they_stand(store: Store) -> None:
    table = store.current("toy", "draft")
    assert table
    ends = [take(published_stage(table.ref, reader="other"), limit=6, contract=DRAFTS)]
    assert reuse(*ends, request=BuildRequest(system="other"), store=store)
    forget(store, ask(store, [secret_row(store)]), reason="withdrawn")
    with pytest.raises(UsageError, match=r"table toy/draft/\w+ holds forgotten rows.*run normloom build toy"):
        reuse(*ends, request=BuildRequest(system="other"), store=store)


def test_a_purge_waits_for_builds_and_leaves_nothing(store: Store) -> None:
    forget(store, ask(store, [secret_row(store)]), reason="withdrawn")
    with pytest.raises(StoreError, match="run normloom build toy, normloom build other first"):
        purge(store)
    build(store)
    with pytest.raises(StoreError, match="run normloom build other first"):
        purge(store)
    borrow(store)
    (store.root / "toy" / BUILDS / "failed.json").write_text(json.dumps({"error": f"cannot read: {SECRET}"}))
    kept_tables = {str(table.ref) for system in store.systems() for table in store.newest(system)}
    purged = purge(store)
    assert purged.found == []
    assert len(purged.removed) == 6  # four tables of toy, one of other, the record of the failed build
    assert {str(table.ref) for system in store.systems() for table in store.newest(system)} == kept_tables
    for path in (path for path in store.root.rglob("*") if path.is_file()):
        content = str(pl.read_parquet(path).to_dicts()) if path.suffix == ".parquet" else path.read_text("latin-1")
        assert "Mill Lane" not in content, path
    assert build(store)["draft"].key in {ref.rpartition("/")[2] for ref in kept_tables}
    assert purge(store).removed == []


def test_a_purge_says_whose_lock_keeps_a_table(store: Store) -> None:
    old = store.current("toy", "draft")
    assert old
    forget(store, ask(store, [secret_row(store)]), reason="withdrawn")
    build(store)
    borrow(store)
    with (
        store.lock(store.table_directory(old.ref), Writer.of("other"), waiting=print),
        pytest.raises(StoreError, match=r"is being written by build other .*: purge again when done"),
    ):
        purge(store)
    assert purge(store).found == []


def test_a_purge_finds_what_another_row_quotes(store: Store) -> None:
    forget(store, ask(store, [secret_row(store)]), reason="withdrawn")
    made("quoting", [nl.table([{"prompt": f"Somebody wrote: {SECRET}"}])], store)
    build(store)
    borrow(store)
    found = purge(store).found
    assert len(found) == 1
    assert found[0].startswith("quoting/table/")
    with pytest.raises(StoreError, match="left in 1 file: "):
        nl.purge(store=store, texts=[SECRET])


def test_newest_tables_can_go_too(store: Store) -> None:
    forget(store, ask(store, [secret_row(store)]), reason="withdrawn")
    assert purge(store, also_newest=True).found == []
    assert store.newest("toy") == []
    assert build(store)["table"].dropped_by == {"forgotten": 1}


def test_exports_that_hold_it_are_named(store: Store) -> None:
    table = store.current("toy", "kept")
    assert table
    record = ExportRecord(
        export="20261127T181503-ab12",
        system="toy",
        version="3",
        build="b",
        created=datetime(2026, 11, 27, tzinfo=UTC),
        path="/data/export",
        format="hf",
        tables=[table.ref],
    )
    write_export(store, record)
    assert "export /data/export (version 3, 2026-11-27)" in ask(store, [secret_row(store)]).beyond
    assert not [place for place in ask(store, texts=["a text that is nowhere"]).beyond if place.startswith("export ")]


def test_what_cannot_be_forgotten_is_said(store: Store) -> None:
    with pytest.raises(UsageError, match="give the id of a row"):
        ask(store)
    with pytest.raises(UsageError, match="a text has 2 characters; at least 8"):
        ask(store, texts=["no"])
    with pytest.raises(UsageError, match="no row id begins with"):
        ask(store, ["000000000"])
    with pytest.raises(UsageError, match="give a --reason"):
        forget(store, ask(store, [secret_row(store)]), reason=" ")
    with pytest.raises(UsageError, match="nothing has been forgotten"):
        purge(store)
    (store.root / FOLDER).mkdir()
    (store.root / FOLDER / "1.json").write_text("{")
    with pytest.raises(StoreError, match="a part of the deny list, is damaged"):
        deny_list(store)


def test_the_command_asks_shows_and_purges(store: Store, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["forget", *arguments, "--store", str(store.root)])
        return result.exit_code, result.output

    file = tmp_path / "text.jsonl"
    file.write_text(json.dumps(SECRET))
    code, said = run("--text-file", str(file), "--reason", "withdrawn")
    assert code == 0
    assert "1 source row and 3 rows made of them, in 5 tables of toy, other; 1 model trained" in " ".join(said.split())
    assert "Nothing was forgotten: give --yes" in said
    assert not deny_list(store).texts
    code, said = run("--text-file", str(file), "--reason", "withdrawn", "--json", "--yes")
    shown = json.loads(said)
    assert (shown["reached"], shown["texts"], shown["forgotten"] is not None) == (4, [text_hash(SECRET)], True)
    build(store)
    borrow(store)
    code, said = run("--purge", "--yes")
    assert code == 0
    assert "no forgotten row or text found" in said


def command(store: Store, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["forget", *arguments, "--store", str(store.root)])
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def test_the_command_says_what_makes_new_tables(store: Store) -> None:
    code, said = command(store, secret_row(store), "--reason", "withdrawn", "--yes")
    assert code == 0
    assert "Forgotten. normloom build toy && normloom build other, with the settings of the last build, makes" in said
    with pytest.raises(StoreError, match="no build has replaced"):
        purge(store)
    build(store)
    borrow(store)
    left = store.root / "toy" / "left.txt"
    left.write_text(f"A note: {SECRET}")
    code, said = command(store, "--purge", "--yes", "--reason", "again", "--text-file", str(text_file(store)))
    assert code == 1
    assert "found toy/left.txt" in said
    assert "that are left hold forgotten rows or texts" in said


def text_file(store: Store) -> Path:
    path = store.root.parent / "text.txt"
    path.write_text(SECRET + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'"good text"\n{', "a.jsonl, line 2: expected a JSON string"),
        ("b.jsonl", b"[1]", "b.jsonl, line 1: expected a JSON string, got list"),
        ("c.txt", b"\xff\xfe", "c.txt is not UTF-8 text"),
    ],
)
def test_a_file_of_texts_that_cannot_be_read_is_named(store: Store, name: str, content: bytes, said: str) -> None:
    path = store.root.parent / name
    path.write_bytes(content)
    code, shown = command(store, "--text-file", str(path), "--reason", "r")
    assert code
    assert said in shown


def test_a_purge_is_not_tried_and_not_done_unasked(store: Store) -> None:
    assert "give their ids, or --text-file" in command(store, "--purge", "--dry-run")[1]
    assert "give --yes to purge without being asked" in command(store, "--purge")[1]
    unknown = store.root.parent / "unknown.txt"
    unknown.write_text("a text that no source has")
    code, said = command(store, "--text-file", str(unknown), "--reason", "r", "--dry-run")
    assert code == 0
    assert "No row of a source has this text; builds will drop it if a source brings it." in said


def test_rows_are_forgotten_and_purged_from_python(store: Store) -> None:
    shown = nl.forget(secret_row(store), store=store, dry_run=True)
    assert len(shown.reach.sources) == 1
    assert not deny_list(store).texts
    nl.forget(texts=[SECRET], reason="withdrawn", store=store.root)
    build(store)
    borrow(store)
    assert nl.purge(store=store).removed
    left = store.root / "toy" / "left.txt"
    left.write_text(SECRET)
    with pytest.raises(StoreError, match=r"forgotten rows or texts are left in 1 file: .*left\.txt"):
        nl.purge(store=store, texts=[SECRET])
