"""Preferences as TRL's own data utilities see them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import datasets
import polars as pl
import pytest

import normloom as nl
from normloom.core.errors import UsageError
from normloom.exports.export import export
from normloom.exports.pairs import PreferenceForm
from normloom.store.store import Store
from normloom.testing.builds import build_id, built


@pytest.fixture(scope="module")
def trl() -> ModuleType:
    """TRL's data utilities, which bring torch and transformers: imported here, they delay no other test."""
    return importlib.import_module("trl.data_utils")


def loaded(store: Store, system: str, folder: Path, pairs: PreferenceForm) -> datasets.Dataset:
    export(store, system, folder, format="trl", pairs=pairs)
    return datasets.concatenate_datasets(list(datasets.load_dataset(str(folder)).values()))


def published(store: Store, system: str) -> pl.DataFrame:
    manifest = store.current(system, "publish")
    assert manifest is not None
    return store.scan(manifest.ref).collect()


@pytest.mark.parametrize("system", ["savacu", "misaligntrade", "persodpo"])
def test_pairs_are_conversational_with_an_explicit_prompt(
    four: Store, trl: ModuleType, system: str, tmp_path: Path
) -> None:
    pairs = loaded(four, system, tmp_path / "out", "conversational")
    for pair in pairs:
        assert trl.is_conversational(pair)
        assert pair["prompt"][-1]["role"] == "user"
        assert [[turn["role"] for turn in pair[side]] for side in ("chosen", "rejected")] == [["assistant"]] * 2
        implicit = {side: [*pair["prompt"], *pair[side]] for side in ("chosen", "rejected")}
        found = trl.extract_prompt(implicit)  # TRL's own reading of pairs without a prompt
        assert found == {name: pair[name] for name in ("prompt", "chosen", "rejected")}
    split = trl.unpair_preference_dataset(pairs.select_columns(["prompt", "chosen", "rejected"]))
    assert split.num_rows == 2 * pairs.num_rows


@pytest.mark.parametrize("system", ["savacu", "misaligntrade"])
def test_every_aligned_response_is_paired_with_every_misaligned_one(
    four: Store, trl: ModuleType, system: str, tmp_path: Path
) -> None:
    pairs = loaded(four, system, tmp_path / "out", "explicit")
    rows = published(four, system)
    expected = {
        (prompt, good, bad)
        for (prompt,), group in rows.group_by("prompt")
        for good in group.filter(alignment="aligned")["response"]
        for bad in group.filter(alignment="misaligned")["response"]
        if good != bad
    }
    assert {(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in pairs} == expected
    assert not any(trl.is_conversational(pair) for pair in pairs)
    texts = dict(rows.select("row_id", "response").iter_rows())
    assert all(texts[pair["chosen_id"]] == pair["chosen"] for pair in pairs)


@pytest.mark.parametrize("system", ["savacu", "persodpo"])
def test_kto_has_each_completion_once_with_its_label(four: Store, trl: ModuleType, system: str, tmp_path: Path) -> None:
    rows = loaded(four, system, tmp_path / "out", "kto")
    assert all(trl.is_conversational(row) and isinstance(row["label"], bool) for row in rows)
    seen = [(str(row["prompt"]), row["completion"][0]["content"], row["label"]) for row in rows]
    assert len(seen) == len(set(seen))
    if system == "savacu":
        told = published(four, system)
        assert sum(row["label"] for row in rows) == told.filter(alignment="aligned").height
        assert rows.num_rows == told.height
    else:
        told = published(four, system)
        sides = [told.select("prompt", pl.col(side)).unique().height for side in ("chosen", "rejected")]
        assert [sum(row["label"] for row in rows), sum(not row["label"] for row in rows)] == sides


class Templated:
    """A tokenizer's chat template, the simplest: a line for each turn."""

    def apply_chat_template(self, messages: list[dict[str, str]], **options: object) -> str:
        lines = "".join(f"<{turn['role']}>{turn['content']}\n" for turn in messages)
        return lines + "<assistant>" * bool(options.get("add_generation_prompt"))


def test_the_chat_template_is_the_trainer_s(four: Store, trl: ModuleType, tmp_path: Path) -> None:
    pair = loaded(four, "savacu", tmp_path / "out", "conversational")[0]
    shown = trl.maybe_apply_chat_template(
        {name: pair[name] for name in ("prompt", "chosen", "rejected")},
        Templated(),  # all that is asked of a tokenizer here
    )
    assert shown["prompt"] == f"<user>{pair['prompt'][0]['content']}\n<assistant>"
    assert shown["chosen"] == f"{pair['chosen'][0]['content']}\n"


def test_a_prompt_with_a_system_text_is_no_plain_text(four: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pairs of persodpo/publish have a system text .*use --pairs conversational"):
        export(four, "persodpo", tmp_path / "out", format="trl", pairs="explicit")
    assert not (tmp_path / "out").exists()


def test_a_table_without_responses_has_no_preferences(four: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no preferences in demo_safetybench/publish: expected the columns prompt_id"):
        export(four, "demo_safetybench", tmp_path / "out", format="trl")


def test_responses_of_one_side_alone_are_no_pairs(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hello"}]
    rows = [{"prompt_id": "p", "messages": said, "response": text, "alignment": "aligned"} for text in ("Hi.", "Yes?")]
    store = Store(tmp_path / "store")
    built(store, nl.table(rows), build=build_id(1), system="one_sided")
    with pytest.raises(UsageError, match="no prompt has both an aligned and a misaligned response"):
        export(store, "one_sided", tmp_path / "out", format="trl")
