"""Steps of AlignX on states made by hand: task vectors, the router, calibrators that see development rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.numpy import save_file

from normloom.core.errors import StageError
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles
from normloom.core.run import Run
from normloom.models.routing.calibrators import Calibrators, tempered
from normloom.models.routing.router import load_router
from normloom.schemas.training.alignx_tables import DEV, TEST, TRAIN
from normloom.schemas.training.routing_tables import GLOBAL, INJECTED, LOCAL, PLAIN
from normloom.tasks.alignx.calibrate import Calibrating, calibrate, calibration_error, calibrators
from normloom.tasks.alignx.checks import check_experts
from normloom.tasks.alignx.inject import Injecting, inject
from normloom.tasks.alignx.merge import merge
from normloom.tasks.alignx.probe import CHANCE, PROBE, Probing, probe_figures
from normloom.tasks.alignx.router import Routing, router, weigh
from normloom.tasks.alignx.states import task_vectors
from normloom.tasks.tuning.lora import ADAPTER, CONFIG

AXES = ("helpful", "honest")
CENTRES = {"helpful": (2.0, 0.0, 0.0), "honest": (0.0, 2.0, 0.0)}
ROUTING = Routing(epochs=40, hidden=4, learning_rate=0.02)
MOVES = {"helpful": (0.5, 0.0, 0.0), "honest": (0.0, 0.0, 0.25)}


def axis_rows(number: int = 120) -> pl.DataFrame:
    drawn = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "row_id": [f"r{at:03}" for at in range(number)],
            "axis": [AXES[at % 2] for at in range(number)],
            "prompt": [f"Prompt {at}" for at in range(number)],
            "split": drawn.choice([TRAIN, DEV, TEST], number, p=[0.5, 0.25, 0.25]).tolist(),
        }
    )


def states(rows: pl.DataFrame, *, spread: float = 1.0) -> pl.DataFrame:
    """Return states around the centre of their axis; the injected ones are moved by what its principle does."""
    drawn = np.random.default_rng(1)
    made = []
    for row_id, axis in rows.select("row_id", "axis").iter_rows():
        plain = np.array(CENTRES[axis]) + spread * drawn.standard_normal(3)
        for variant, vector in ((PLAIN, plain), (INJECTED, plain + np.array(MOVES[axis]))):
            made.append({"item_id": f"{row_id}:{variant}", "vector": vector.tolist(), "encoder": "hand"})
    return pl.DataFrame(made, schema_overrides={"vector": pl.List(pl.Float32)})


def run_in(place: Path) -> Run:
    for name in ("scratch", "files"):
        (place / name).mkdir(parents=True)
    return Run(place / "scratch", place / "files")


def files(place: Path) -> ProductFiles:
    return ProductFiles(model="p", product="p", folder=str(place / "files"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, Path]:
    """Return the axis rows, their states, the router's curve and where the router is."""
    place, rows = tmp_path_factory.mktemp("router"), axis_rows()
    own = states(rows)
    curve = router.function(rows, ROUTING, own, vectors_of(rows, own), run=run_in(place))
    return rows, own, curve.rows, place


def injected(rows: pl.DataFrame) -> pl.DataFrame:
    made = inject.function(rows, Injecting(), axes=AXES)
    return made.with_columns(row_id=pl.format("{}-{}", "row_id", "variant"))


def vectors_of(rows: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    return task_vectors.function(injected(rows), own).rows


def test_each_prompt_is_there_plain_and_with_its_principle() -> None:
    made = injected(axis_rows(4))
    assert made.group_by("prompt_id").len()["len"].to_list() == [2] * 4
    texts = {(prompt, variant): text for prompt, variant, text in made.select("prompt_id", "variant", "prompt").rows()}
    assert texts["r000", PLAIN] == "Prompt 0"
    assert texts["r000", INJECTED] == f"{Injecting().principles['helpful']}\n\nPrompt 0"
    other = inject.function(axis_rows(1).with_columns(axis=pl.lit("culture")), Injecting(), axes=("culture",))
    assert other["prompt"][1] == "Give the most culture reply that you can.\n\nPrompt 0"
    with pytest.raises(StageError, match="the rows have the axes helpful, honest; the settings name helpful, safe"):
        inject.function(axis_rows(4), Injecting(), axes=("helpful", "safe"))


def test_a_task_vector_is_what_the_principle_does() -> None:
    rows = axis_rows()
    made = vectors_of(rows, states(rows))
    for axis, vector, norm, prompts, cosines in made.select("axis", "vector", "norm", "prompts", "cosines").iter_rows():
        assert vector == pytest.approx(MOVES[axis], abs=1e-6)
        assert norm == pytest.approx(np.linalg.norm(MOVES[axis]))
        assert prompts == rows.filter(axis=axis, split=TRAIN).height
        assert sorted(cosines) == pytest.approx([0.0, 1.0], abs=1e-6)
    still = states(rows).with_columns(vector=pl.col("vector").first().over(pl.col("item_id").str.slice(0, 4)))
    with pytest.raises(StageError, match="axis 'helpful': its principle changes no state"):
        vectors_of(rows, still)
    train = rows.filter(split=TRAIN)["row_id"][-1]
    with pytest.raises(StageError, match=r"1 of \d+ prompts have no state"):
        vectors_of(rows, states(rows).filter(pl.col("item_id") != f"{train}:{PLAIN}"))


def test_the_router_finds_the_axis_and_not_always_one(trained: Any) -> None:
    rows, own, curve, place = trained
    assert curve["loss"][-1] < curve["loss"][0]
    assert curve["weights"][-1] != curve["weights"][0]
    assert load_router(place / "files")[1] == AXES
    told = weigh.function(rows, own, router=files(place))
    weights = np.exp(np.array(told["log_probabilities"].to_list()))
    assert weights.sum(1) == pytest.approx(np.ones(rows.height))
    said = np.array(AXES)[weights.argmax(1)]
    test = (rows["split"] == TEST).to_numpy()
    assert (said == rows["axis"].to_numpy())[test].mean() > 0.75
    gate = np.array(told["gate"].to_list())
    assert gate.sum(1) == pytest.approx(np.ones(rows.height))
    assert (gate.std(0) / gate.mean(0)).min() > 0.1


def test_the_router_does_not_learn_from_development_and_test_rows(trained: Any, tmp_path: Path) -> None:
    rows, own, curve, _ = trained
    moved = own.with_columns(
        vector=pl.when(
            pl.col("item_id").str.slice(0, 4).is_in(rows.filter(pl.col("split") != TRAIN)["row_id"].implode())
        )
        .then(pl.col("vector").list.reverse())
        .otherwise("vector")
    )
    args = ROUTING
    again = router.function(rows, args, moved, vectors_of(rows, own), run=run_in(tmp_path)).rows
    assert_frame_equal(again.select("loss", "weights"), curve.select("loss", "weights"))
    first = rows.filter(split=TRAIN)["row_id"][0]
    mixed = own.with_columns(
        vector=pl.when(pl.col("item_id") == f"{first}:{PLAIN}")
        .then(pl.lit([float("inf"), 0.0, 1.0], dtype=pl.List(pl.Float32)))
        .otherwise("vector")
    )
    with pytest.raises(StageError, match=r"lower router\.learning_rate"):
        router.function(rows, args, mixed, vectors_of(rows, own), run=run_in(tmp_path / "bad"))


def test_without_development_rows_the_router_has_no_loss_of_them(tmp_path: Path) -> None:
    rows = axis_rows().filter(pl.col("split") != DEV)
    own = states(rows)
    made = router.function(rows, Routing(epochs=1), own, vectors_of(rows, own), run=run_in(tmp_path)).rows
    assert made["dev_loss"].null_count() == made.height == 2


def fitted(place: Path, weighed: pl.DataFrame, own: pl.DataFrame, **args: Any) -> pl.DataFrame:
    return calibrators.function(weighed, Calibrating(**args), own, run=run_in(place)).rows


def test_temperatures_come_from_development_rows_alone(trained: Any, tmp_path: Path) -> None:
    rows, own, _, place = trained
    weighed = weigh.function(rows, own, router=files(place))
    first = fitted(tmp_path / "first", weighed, own, neighbours=8)
    other = pl.col("split") != DEV
    flipped = weighed.with_columns(
        axis=pl.when(other & (pl.col("axis") == "helpful")).then(pl.lit("honest")).otherwise("axis"),
        log_probabilities=pl.when(other)
        .then(pl.col("log_probabilities").list.reverse())
        .otherwise("log_probabilities"),
    )
    assert_frame_equal(fitted(tmp_path / "other", flipped, own, neighbours=8), first)
    own_rows = weighed.with_columns(
        axis=pl.when((pl.col("split") == DEV) & (pl.col("axis") == "helpful")).then(pl.lit("honest")).otherwise("axis")
    )
    assert fitted(tmp_path / "own", own_rows, own, neighbours=8)["temperature"][0] != first["temperature"][0]
    with pytest.raises(StageError, match=r"no development rows .* raise source.dev_share"):
        fitted(tmp_path / "none", weighed.filter(split=TRAIN), own)


def test_calibration_does_not_raise_the_error_of_development_rows(trained: Any, tmp_path: Path) -> None:
    rows, own, _, place = trained
    weighed = weigh.function(rows, own, router=files(place))
    sure = weighed.with_columns(log_probabilities=pl.col("log_probabilities").list.eval(pl.element() * 4))
    made = fitted(tmp_path, sure, own, neighbours=8)
    assert set(made["kind"]) == {GLOBAL, LOCAL}
    assert (made["ece_after"] <= made["ece_before"]).all()
    assert made["temperature"][0] > 1
    told = calibrate.function(sure, own, calibrators=files(tmp_path))
    for column in ("probabilities", "calibrated_global", "calibrated_local"):
        assert told[column].list.sum().to_numpy() == pytest.approx(np.ones(rows.height))
    dev = told.filter(split=DEV).sort("prompt_id")
    labels = np.array([AXES.index(axis) for axis in dev["axis"]])
    errors = [
        calibration_error(np.array(dev[column].to_list()), labels)
        for column in ("probabilities", "calibrated_global", "calibrated_local")
    ]
    assert errors[0] == pytest.approx(made["ece_before"][0])
    assert errors[1] == pytest.approx(made.filter(kind=GLOBAL)["ece_after"][0])
    assert errors[2] == pytest.approx(made.filter(kind=LOCAL)["ece_after"][0])
    natural = Calibrators.load(tmp_path / "files").temperature
    by_hand = tempered(np.array(sure["log_probabilities"].to_list()), natural)
    assert np.array(told["calibrated_global"].to_list()) == pytest.approx(by_hand)


def test_the_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.45, 0.55], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 0])
    assert calibration_error(probabilities, labels) == pytest.approx((abs(2 - 2.86) + abs(1 - 0.55)) / 4)


def test_a_probe_reads_the_axis_from_the_states() -> None:
    rows = axis_rows()
    found = {row["metric"]: row for row in probe_figures.function(rows, Probing(), states(rows)).rows.to_dicts()}
    assert found[PROBE]["low"] > found[CHANCE]["value"] == 0.5
    nothing = {
        row["metric"]: row for row in probe_figures.function(rows, Probing(), states(rows, spread=99)).rows.to_dicts()
    }
    assert nothing[PROBE]["low"] < 0.5


def expert(place: Path, *layers: str) -> ProductFiles:
    place.mkdir()
    tensors = {f"{layer}.lora_{side}.weight": np.ones((2, 2), np.float32) for layer in layers for side in "AB"}
    save_file(tensors, place / ADAPTER)
    (place / CONFIG).write_text('{"r": 2, "lora_alpha": 2}')
    return ProductFiles(model="p", product="p", folder=str(place))


def test_experts_of_other_layers_are_not_merged_and_checked_without_replies(tmp_path: Path) -> None:
    experts = RolesSpec(
        model="experts", roles={"helpful": expert(tmp_path / "a", "q", "k"), "honest": expert(tmp_path / "b", "q")}
    )
    curves = pl.DataFrame(
        {"axis": ["helpful", "helpful", "honest", "honest"], "step": [1, 2] * 2, "loss": [2.0, 1.0] * 2}
    ).with_columns(held_out_loss=pl.lit(None, pl.Float64))
    with pytest.raises(StageError, match="the expert of axis 'honest' does not change k, and others do: not merged"):
        merge.function(curves, experts=experts, weight=1.0, run=run_in(tmp_path / "merged"))
    told = check_experts.function(curves, experts=experts).rows
    assert told.select("check", "of", "passed").rows() == [
        ("C4", "expert of helpful", True),
        ("C4", "expert of honest", True),
        ("C5", "experts", True),
    ]
