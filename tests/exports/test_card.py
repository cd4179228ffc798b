"""What a card says, read as its reader would."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from huggingface_hub import DatasetCard

from normloom.core.contract import Contract
from normloom.core.stage import Output, Stage
from normloom.exports.card import made
from normloom.exports.card.before import lock_of
from normloom.exports.card.changes import ReleaseChange, lines
from normloom.exports.card.markdown import block, size_category, text
from normloom.exports.export import export
from normloom.exports.licences import front_matter, identifier, restrictions
from normloom.exports.origins import rights
from normloom.history.releases import ReleaseRecord, versions
from normloom.history.terms import SourceTerms
from normloom.settings.faces.about import About
from normloom.settings.systems import system_named, system_names
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import Words, echo_stage, words_stage


def card(store: Store, system: str, folder: Path, **options: object) -> str:
    export(store, system, folder, **options)  # type: ignore[arg-type]  # options of an export
    return (folder / "README.md").read_text()


def section(text: str, title: str) -> str:
    [found] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def lines_of(text: str, first: str) -> Sequence[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_hub_s_own_reader_takes_the_front_matter(four: Store, tmp_path: Path) -> None:
    data: Any = DatasetCard(card(four, "savacu", tmp_path / "out")).data
    assert (data.license, data.language, data.size_categories) == ("apache-2.0", ["en"], ["n<1K"])
    assert data.task_categories == ["text-generation", "text-classification"]
    assert {"not-for-all-audiences", "synthetic"} <= set(data.tags)


@pytest.mark.parametrize("system", ["savacu", "misaligntrade", "demo_safetybench", "persodpo"])
def test_a_card_tells_each_stage_s_rows_and_describes_every_column(four: Store, system: str, tmp_path: Path) -> None:
    text = card(four, system, tmp_path / "out")
    made = section(text, "How it was made")
    for manifest in four.newest(system):
        cells = lines_of(made, f"`{manifest.stage}`")
        counted = [manifest.rows_in, *(manifest.count(kind) for kind in ("rows", "dropped", "quarantined"))]
        assert cells[3:7] == [f"{count:,}" for count in counted]
    release = section(text, "What it holds").partition("### Columns of default")[2].partition("###")[0]
    assert not [line for line in release.splitlines() if line.endswith("| - |")]
    assert "> **Warning.** Scripted models took part" in text
    assert "arXiv" in section(text, "How to cite")


def test_a_card_has_figures_with_intervals_and_says_why_one_is_undefined(four: Store, tmp_path: Path) -> None:
    figures = section(card(four, "misaligntrade", tmp_path / "out"), "Figures")
    assert re.search(r"\| \d\.\d{3} \| \d\.\d{3} to \d\.\d{3} \|", figures)
    agreement = section(card(four, "savacu", tmp_path / "savacu"), "Figures")
    assert re.search(r"\| - \| undefined: fewer than 5 ", agreement)


def test_a_card_has_thresholds_checks_and_the_command_that_builds_it_again(four: Store, tmp_path: Path) -> None:
    text = card(four, "persodpo", tmp_path / "out")
    assert "`quality`" in section(text, "How it was made")
    assert "normloom build persodpo --profile local --set source.limit=4" in text
    assert re.search(r"The check `expect_column_values_to_be_in_set\(passed\)` of `checks` did not pass", text)
    assert "`judge_0`" not in text
    assert "threshold 0.5" in card(four, "savacu", tmp_path / "savacu")


class Seeded(Words):
    seed: int = 20_261_130
    rate: float = 0.123_456_789


def test_settings_keep_all_their_digits(store: Store, tmp_path: Path) -> None:
    built(store, replace(words_stage("a"), arguments=Seeded(words=("a",))), build=build_id(1))
    told = section(card(store, "toy", tmp_path / "out"), "How it was made")
    assert "seed 20261130" in told
    assert "rate 0.123456789" in told


def test_a_source_of_another_system_brings_its_licence(four: Store, tmp_path: Path) -> None:
    origin = section(card(four, "misaligntrade", tmp_path / "out"), "Where it comes from")
    assert lines_of(origin, "the built-in data of savacu") == [
        "the built-in data of savacu",
        "`savacu`",
        "apache-2.0",
        "en",
    ]


def test_what_another_system_made_before_is_told_too(four: Store, tmp_path: Path) -> None:
    text = card(four, "misaligntrade", tmp_path / "out")
    made = section(text, "How it was made")
    assert f"It starts from tables of `savacu` (build `{build_id(1)}`):" in made
    told = set(re.findall(r"^\| `(\w+)` \|", made.partition("It starts from")[2].partition("###")[0], re.MULTILINE))
    assert told == {"ingest", "score_labels", "classify"}  # what led to the labelled prompts
    assert "`savacu/score_labels`" in made
    assert lines_of(made.partition("### Settings of savacu")[2], "`classify`") == ["`classify`", "delta 0.5"]
    assert "Prompts labelled" not in section(card(four, "savacu", tmp_path / "savacu"), "How it was made")


def test_a_check_that_does_not_hold_is_shown_with_what_was_found(four: Store, tmp_path: Path) -> None:
    figures = section(card(four, "persodpo", tmp_path / "out"), "Figures")
    manifest = four.current("persodpo", "checks")
    assert manifest is not None
    held = four.scan(manifest.ref).select("passed").collect()["passed"]
    checks = figures.partition("### checks")[2].partition("###")[0]
    assert (checks.count("| yes |"), checks.count("| **no** |")) == (held.sum(), (~held).sum())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize(
    ("licence", "warning"),
    [
        (None, "The licence is unknown: nobody has said that these rows may be shared or used."),
        ("CC-BY-NC-4.0", "The licence CC-BY-NC-4.0 forbids commercial use."),
        ("cc-by-4.0", None),
    ],
)
def test_what_a_licence_forbids_is_said_at_the_top(
    store: Store, tmp_path: Path, licence: str | None, warning: str | None
) -> None:
    terms = SourceTerms(name="https://me:secret@example.org/a.csv", licence=licence, citation="@misc{a}")
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1), source=terms)
    made = export(store, "toy", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert list(made.warnings) == ([warning] if warning else [])
    opening = text.partition("## How to read it")[0]
    assert [line for line in opening.splitlines() if "icence " in line and line.startswith("> **")] == (
        [f"> **Warning.** {warning}"] if warning else []
    )
    assert "@misc{a}" in section(text, "How to cite")
    assert yaml.safe_load(text.split("---\n")[1])["license"] == identifier(licence)


LICENSED = Contract(columns={"word": pl.String(), "Licence": pl.String()}, nullable=frozenset({"Licence"}))


def licensed(arguments: Words) -> Output:
    """Return a row for each word, which is its licence; the word `none` has none."""
    rows = pl.DataFrame({"word": arguments.words, "content": map(str, range(len(arguments.words)))})
    licence = pl.when(pl.col("word") != "none").then("word").alias("Licence")
    made = rows.with_columns(licence, parents=pl.lit([], dtype=pl.List(pl.String)))
    return Output(rows=made, attempts=made.height)


def test_rows_with_licences_of_their_own_are_counted(store: Store, tmp_path: Path) -> None:
    words = Words(words=("mit", "mit", "cc-by-nc-4.0", "none"))
    stage = Stage(name="words", function=licensed, arguments=words, contract=LICENSED)
    built(store, stage, build=build_id(1), source=SourceTerms(name="a.csv"))
    made = export(store, "toy", tmp_path / "out")
    assert list(made.licences) == ["mit", None, "cc-by-nc-4.0"]
    assert list(made.warnings) == [
        "1 row: The licence is unknown: nobody has said that these rows may be shared or used.",
        "1 row: The licence cc-by-nc-4.0 forbids commercial use.",
    ]
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- 2 rows under mit, by a column of the rows." in section(text, "Licence")
    data: Any = DatasetCard(text).data
    assert data.license == ["mit", "unknown", "cc-by-nc-4.0"]


@pytest.mark.parametrize("name", system_names())
def test_every_system_has_the_words_of_its_card(name: str) -> None:
    words = system_named(name).about
    assert words == About.of(name)
    assert words.builtin is not None
    assert words.summary
    assert set(words.tasks) <= {"text-generation", "text-classification"}


def test_secrets_and_folders_of_this_machine_are_in_no_file(store: Store, tmp_path: Path) -> None:
    given = [
        "source.path='https://me:hunter2@example.org/a.csv?token=hunter2'",
        "source.items=/home/someone/private/items.csv",
        "models={judge: {model: /home/someone/model, options: {base_url: 'http://me:hunter2@localhost/v1'}}}",
    ]
    terms = SourceTerms(name="/home/someone/private/a.csv")
    built(store, words_stage("a"), build=build_id(1), settings=given, profile="/home/someone/p.yaml", source=terms)
    export(store, "toy", tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert not re.search(rb"hunter2|someone|" + str(store.root).encode(), path.read_bytes()), path


def test_row_texts_and_names_are_no_markup(store: Store, tmp_path: Path) -> None:
    terms = SourceTerms(name="<script>alert(1)</script>.csv", licence="my|licence`<b>")
    built(store, words_stage("<img src=x>"), build=build_id(1), source=terms)
    text = card(store, "toy", tmp_path / "out").split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)<(script|img|b)", text)
    assert r"my\|licence\`\<b\>" in text


def test_the_change_log_is_the_diff_of_releases(store: Store, tmp_path: Path) -> None:
    for number, (words, copies, licence) in enumerate((("ab", 1, None), ("abc", 1, None), ("abc", 1, "mit")), start=1):
        stage = echo_stage(words_stage(*words), copies=copies)
        built(store, stage, build=build_id(number), source=SourceTerms(name="a.csv", licence=licence))
    built(store, words_stage(*"abc"), build=build_id(4), source=SourceTerms(name="a.csv", licence="mit"))
    changes = section(card(store, "toy", tmp_path / "new"), "Changes").strip().splitlines()
    day = f"{versions(store, 'toy')[0].created:%Y-%m-%d}"
    assert changes == [
        f"- **2.0.0** ({day}, 3 rows): the table words in place of echo; column echo removed.",
        f"- **1.1.1** ({day}, 3 rows): licence of the source - → mit.",
        f"- **1.1.0** ({day}, 3 rows): 1 row added, 0 removed, 0 changed; because of `arguments.words[2]`.",
        f"- **1.0.0** ({day}, 2 rows): first release.",
    ]
    old = card(store, "toy", tmp_path / "old", version="1.0.0")
    assert section(old, "Changes").strip() == changes[-1]
    assert "Version 1.0.0" in old


@pytest.mark.parametrize(
    ("licence", "known"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("CC0", "cc0-1.0"),
        ("MIT", "mit"),
        ("in-house", "other"),
        (None, "unknown"),
        ("Unknown", "unknown"),
    ],
)
def test_licences_get_the_hub_s_identifiers(licence: str | None, known: str) -> None:
    assert identifier(licence) == known


def test_a_licence_that_the_hub_does_not_list_is_named() -> None:
    assert front_matter(["in-house"]) == {"license": "other", "license_name": "in-house"}
    assert front_matter(["mit", "cc-by-4.0"]) == {"license": ["mit", "cc-by-4.0"]}
    assert front_matter([]) == {"license": "unknown"}


@pytest.mark.parametrize(
    ("licence", "word"),
    [
        ("cc-by-nc-sa-4.0", "commercial"),
        ("for research only", "commercial"),
        ("cc-by-nd-4.0", "sharing derived"),
        ("cc-by-sa-4.0", "same terms"),
        ("agpl-3.0", "same terms"),
    ],
)
def test_restrictions_are_read_from_the_licence(licence: str, word: str) -> None:
    assert word in " ".join(restrictions(licence))


def test_free_licences_restrict_nothing() -> None:
    assert [restrictions(licence) for licence in ("mit", "apache-2.0", "cc-by-4.0", "cc0-1.0")] == [[]] * 4


def test_sizes_have_the_hub_s_names() -> None:
    assert [size_category(rows) for rows in (0, 999, 1000, 382_424, 10**10)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "100K<n<1M",
        "n>1B",
    ]


def test_values_are_plain_text_in_markdown() -> None:
    assert [text(value) for value in (None, 1234, 0.5, True, "a|b\nc")] == ["-", "1,234", "0.500", "true", r"a\|b c"]
    assert block("a\n```\nb")[0] == "````"


def release(**changes: object) -> ReleaseRecord:
    told = {"version": "1.1.0", "system": "toy", "stage": "echo", "key": "k", "content": "new", "rows": 3}
    made = {"build": "b", "created": "2026-11-27T00:00:00Z", "columns": {}, "source": {"name": "a.csv"}}
    return ReleaseRecord.model_validate({**told, **made, **changes})


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({"content": "old", "rows": 2}, "2 rows before; the two tables are no longer both in the store"),
        ({"source": {"name": "a.csv", "citation": "Doe 2020"}}, "citation of the source changed"),
        ({}, "only the terms differ"),
    ],
)
def test_the_change_log_holds_without_tables(before: dict[str, object], said: str) -> None:
    change = ReleaseChange(version=release(), before=release(version="1.0.0", **before))
    assert lines([change]) == [f"- **1.1.0** (2026-11-27, 3 rows): {said}."]


def test_versions_whose_builds_are_gone_are_told_by_their_records(store: Store, tmp_path: Path) -> None:
    for number, words in enumerate(("ab", "abc"), start=1):
        built(store, echo_stage(words_stage(*words)), build=build_id(number))
    (store.root / "toy" / "builds" / f"{build_id(1)}.yaml").unlink()
    assert re.search(
        r"\*\*1\.1\.0\*\* .*: 2 rows before; the two tables are no longer both", card(store, "toy", tmp_path / "out")
    )


def test_long_tables_of_figures_say_how_many_more_there_are(
    four: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "FIGURES_SHOWN", 1)
    assert re.search(r"And \d+ more, in the table `\w+`\.", card(four, "misaligntrade", tmp_path / "out"))


def test_a_release_whose_table_and_lock_are_gone_keeps_its_terms(store: Store) -> None:
    gone = release(source={"name": "a.csv", "licence": "mit"})
    found = rights(store, gone)
    assert ([one.terms.licence for one in found.origins], found.rows) == (["mit"], {})
    assert lock_of(store, gone.ref) is None
