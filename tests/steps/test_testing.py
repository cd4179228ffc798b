"""`normloom.testing`, used as a writer of steps would."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import normloom as nl
from normloom import testing
from normloom.core.errors import AccountingError, ContractError
from normloom.store.store import Store
from normloom.testing import embedder, language_model, made, scripted

ROWS = [{"prompt": "Could you, please?"}, {"prompt": "Do it."}]


@nl.step(makes={"prompt": pl.String, "polite": pl.Float64}, fan_out=nl.each())
def tone(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    return rows.with_columns(polite=nl.yes(model, "Is it polite?", rows["prompt"]))


@nl.step(makes={"prompt": pl.String}, fan_out=nl.each())
def loses(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.head(1)


@nl.step(makes={"prompt": pl.String})
def returns(rows: pl.DataFrame, *, kind: str) -> pl.DataFrame:
    return {"nothing": None, "lazy": rows.lazy(), "pandas": rows.to_pandas()}[kind]  # type: ignore[return-value]  # mistakes


@pytest.mark.parametrize(
    ("kind", "got"), [("nothing", "None"), ("lazy", "a polars.LazyFrame"), ("pandas", "a pandas.DataFrame")]
)
def test_what_a_step_returns_instead_of_a_frame_is_named(tmp_path: Path, kind: str, got: str) -> None:
    told = f"stage 'returns': its step must return a polars.DataFrame or an Output, not {got}$"
    with pytest.raises(ContractError, match=told):
        made("tone", [returns(nl.table(ROWS), kind=kind)], Store(tmp_path))


def test_the_bare_function_is_called_with_a_scripted_model() -> None:
    rows = pl.DataFrame(ROWS).with_columns(row_id=pl.col("prompt"))
    found = tone.function(rows, language_model(yes_rate=0.9))
    assert found["polite"].is_between(0, 1).all()
    assert found.equals(tone.function(rows, language_model(yes_rate=0.9)))  # the same answers every time


def test_a_flow_is_made_in_this_process_and_held_to_its_account(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = made("tone", [tone(nl.table(ROWS, name="prompts"), scripted("toy"))], store)["tone"]
    assert store.scan(table.ref).collect()["prompt"].to_list() == [row["prompt"] for row in ROWS]
    with pytest.raises(AccountingError, match="1 of 2 rows are not accounted for"):
        made("tone", [loses(nl.table(ROWS, name="prompts"))], store)


def test_vectors_are_of_unit_length() -> None:
    assert (embedder().embed(["a", "b"]) ** 2).sum(axis=1) == pytest.approx([1, 1])


def test_public_names_are_these() -> None:
    assert testing.__all__ == [
        "echo_stage",
        "embedder",
        "language_model",
        "made",
        "scripted",
        "unread_settings",
        "words_stage",
    ]
