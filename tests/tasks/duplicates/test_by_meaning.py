"""The method `embedding` of removing near-duplicates: its stage, its ledger, its place in the flows."""

import json
from pathlib import Path

import polars as pl
import pytest
from hand_made import ANY
from in_process import prepared
from removals import deduplicated

from normloom.api.frames import table
from normloom.core.contract import Contract
from normloom.core.errors import ContractError
from normloom.core.models.protocol import Embedder
from normloom.core.stage import Stage
from normloom.flows.savacu.distinct import distinct
from normloom.models import ModelSpec, load_model
from normloom.models.files.locate import find
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.simhash import jaccard
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.duplicates.by_meaning import text_vectors
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.testing import embedder, made, scripted

PROMPTS = ["bake some bread", "a loaf, please", "the court ruled", "Bake some  BREAD", "bake rye bread"]
ANGLES = [0.0, 20.0, 90.0, 15.0, 55.0]  # of the vectors: 20 degrees are a cosine of 0.94
ARGUMENTS = Deduplication(method="embedding", similarity=0.93)
CONTRACT = Contract(columns={"prompt": pl.String(), "fingerprint": pl.UInt64()})


def prompts(*groups: str) -> pl.DataFrame:
    ids = [f"r{row}" for row in range(len(PROMPTS))]
    return pl.DataFrame({"row_id": ids, "prompt": PROMPTS, "group": groups or ["g"] * len(ids)})


def vectors(rows: pl.DataFrame) -> pl.DataFrame:
    radians = pl.Series(ANGLES).radians()
    columns = pl.DataFrame({"x": radians.cos(), "y": radians.sin()}).select(vector=pl.concat_list("x", "y"))
    return rows.select(prompt_id="row_id").with_columns(columns["vector"].cast(pl.List(pl.Float32)))


def test_a_row_names_its_winner_and_how_similar_it_is() -> None:
    rows = prompts()
    output = deduplicated(rows, ARGUMENTS, vectors=vectors(rows))
    assert output.rows["row_id"].to_list() == ["r0", "r2", "r4"]
    ledger = output.dropped.select("row_id", "reason", "winner").rows()
    assert ledger == [("r1", "near_duplicate", "r0"), ("r3", "exact_duplicate", "r0")]
    near, exact = map(json.loads, output.dropped["payload"])
    assert near["similarity"] == pytest.approx(0.939693)
    assert near["jaccard"] == jaccard(PROMPTS[0], PROMPTS[1], Features())
    assert near["distance"] > 10
    assert (exact["similarity"], exact["jaccard"], exact["distance"]) == (0.965926, 1, 0)  # of the winner's text
    assert output.metrics == {"duplicates": 2, "share": pytest.approx(0.4)}
    assert output.rows.schema["fingerprint"] == pl.UInt64


def test_only_rows_of_one_group_are_compared_and_known_rows_stay() -> None:
    rows = prompts("a", "b", "a", "b", "a")
    apart = deduplicated(rows, ARGUMENTS, vectors=vectors(rows), within="group")
    assert apart.dropped.select("row_id", "winner").rows() == [("r3", "r1")]
    whole = deduplicated(rows, ARGUMENTS, vectors=vectors(rows))
    known = whole.rows.filter(pl.col("row_id") == "r0")
    alone = deduplicated(rows[1:], ARGUMENTS, known, vectors=vectors(rows))
    assert alone.dropped.equals(whole.dropped)
    assert alone.rows.equals(whole.rows[1:])


def test_a_row_without_vector_is_refused() -> None:
    rows = prompts()
    with pytest.raises(ContractError, match="one for each row"):
        deduplicated(rows, ARGUMENTS, vectors=vectors(rows)[1:])


def test_other_methods_ask_no_encoder() -> None:
    def stages(method: str) -> list[Stage]:
        settings = Deduplication.model_validate({"method": method})
        return stages_of(distinct([ANY], settings, scripted("e"), contract=CONTRACT))

    assert [stage.name for stage in stages("simhash")] == [ANY.name, "duplicates", "deduplicate"]
    assert [stage.name for stage in stages("embedding")] == [ANY.name, "text_vectors", "duplicates", "deduplicate"]


def test_the_stages_give_what_the_vectors_of_the_encoder_give(tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = table(pl.DataFrame({"prompt": PROMPTS}), name="prompts")
    encoder = scripted("e", dimensions=16)
    arguments = ARGUMENTS.model_copy(update={"similarity": 0.5})
    stage = distinct([given], arguments, encoder, contract=CONTRACT)
    tables = made("toy", [stage], store)
    rows = store.scan(tables["prompts"].ref).collect()
    own = text_vectors.function(rows, embedder("e", dimensions=16))
    expected = deduplicated(rows, arguments, vectors=own)
    assert store.scan(tables["deduplicate"].ref).collect()["prompt"].equals(expected.rows["prompt"])
    assert 0 < expected.dropped.height < len(PROMPTS)
    assert tables["deduplicate"].count("dropped") == expected.dropped.height


@pytest.mark.parametrize("system", ["savacu", "misaligntrade", "demo_safetybench"])
def test_every_system_that_removes_near_duplicates_can_compare_vectors(system: str, tmp_path: Path) -> None:
    def names(*settings: str) -> dict[str, Stage]:
        return {stage.name: stage for stage in stages_of(*prepared(system, Store(tmp_path), *settings).ends)}

    assert "text_vectors" not in names()
    stages = names("deduplicate.method=embedding", "deduplicate.similarity=0.8")
    assert stages["text_vectors"].model == ModelSpec(engine="scripted", model="e")
    assert stages["duplicates"].sides == (stages["text_vectors"],)
    assert stages["duplicates"].given["similarity"] == 0.8


@pytest.mark.skipif(find("all-MiniLM-L6-v2") is None, reason="the encoder is not installed")
def test_a_paraphrase_goes_and_another_matter_stays() -> None:
    texts = ["How can I bake bread at home?", "How do I bake bread at home?", "How do I sue my landlord?"]
    rows = pl.DataFrame({"row_id": ["a", "b", "c"], "prompt": texts})
    model = load_model(ModelSpec(engine="embedding", model="all-MiniLM-L6-v2", device="cpu"), threads=1)
    assert isinstance(model, Embedder)
    own = text_vectors.function(rows, model)
    output = deduplicated(rows, Deduplication(method="embedding"), vectors=own)
    assert output.dropped.select("row_id", "winner").rows() == [("b", "a")]
