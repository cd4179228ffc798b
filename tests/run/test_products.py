from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from normloom.core.errors import ConfigError, StageError, StoreError
from normloom.core.models.needs import Needs
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.core.table import Manifest
from normloom.history.removal.gc import collect, remove
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.store.layout import SCRATCH
from normloom.store.locks.hold import Hold
from normloom.store.store import Store
from normloom.store.verify import repair, verify
from normloom.testing import made, words_stage

CURVE = {"step": pl.Int64, "total": pl.Float64}
STEPS = 6


class Learning(Args):
    scale: float = 1.0
    note: str = ""
    writes: bool = True


@step(makes=CURVE, files="weights")
def learn(rows: pl.DataFrame, args: Learning, run: Run) -> Output:
    """Add up the words' lengths, step by step, from the newest checkpoint."""
    kept = run.scratch / "total.npy"
    totals = list(np.load(kept, allow_pickle=False)) if kept.exists() else []
    for number in range(len(totals), STEPS):
        totals.append((totals[-1] if totals else 0.0) + args.scale * sum(map(len, rows["word"])))
        np.save(kept, np.array(totals))
        run.progress(number + 1, STEPS, loss=1 / (number + 1), tokens=10 * (number + 1))
    if args.writes:
        (run.files / "inner").mkdir()
        np.save(run.files / "inner" / "weights.npy", np.array(totals))
        (run.files / "note.txt").write_text(args.note)
    curve = pl.DataFrame({"step": range(1, STEPS + 1), "total": totals})
    ids = curve.with_columns(parents=pl.lit([], dtype=pl.List(pl.String)), content=pl.col("step").cast(pl.String))
    return Output(rows=ids, attempts=STEPS)


def product(store: Store, **arguments: object) -> Manifest:
    return made("toy", [learn(words_stage("a", "bc"), Learning(**arguments))], store)["learn"]


def test_a_product_has_rows_and_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = product(store, note="first")
    folder = store.folder(manifest.ref)
    assert sorted(manifest.attached) == ["inner/weights.npy", "note.txt"]
    assert np.load(folder / "inner" / "weights.npy", allow_pickle=False)[-1] == 3 * STEPS
    assert store.scan(manifest.ref).collect()["total"].to_list() == [3.0 * number for number in range(1, STEPS + 1)]
    assert not (store.table_directory(manifest.ref) / SCRATCH).exists()
    assert not list(store.table_directory(manifest.ref).glob(".files-*"))
    assert product(store, note="first") == manifest


def test_files_count_in_the_content_and_names_of_writers_do_not(tmp_path: Path) -> None:
    first, other = product(Store(tmp_path / "one"), note="x"), product(Store(tmp_path / "two"), note="x")
    assert first.content == other.content
    assert first.parts[0].attached[0].name != other.parts[0].attached[0].name
    assert product(Store(tmp_path / "one"), note="y").content != first.content


def test_damage_to_files_is_found_and_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = product(store)
    path = store.folder(manifest.ref) / "inner" / "weights.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"inner/weights.npy is damaged: its checksum differs"):
        Store(tmp_path).folder(manifest.ref)
    damage = list(verify(store, "toy"))
    assert [found.file for found in damage] == [f"{path.parent.parent.name}/inner/weights.npy"]
    repair(store, damage, Hold())
    assert product(Store(tmp_path)).content == manifest.content
    assert not list(verify(store, "toy"))


def test_a_file_that_nobody_wrote_is_refused(tmp_path: Path) -> None:
    manifest = product(Store(tmp_path))
    (Store(tmp_path).folder(manifest.ref) / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(StoreError, match=r"pytorch_model.bin is not listed in the manifest"):
        Store(tmp_path).folder(manifest.ref)


def test_a_product_without_files_fails_and_keeps_its_scratch(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"makes files \(weights\), but left none in run.files"):
        product(Store(tmp_path), writes=False)
    [key] = (tmp_path / "toy" / "learn").iterdir()
    assert (key / SCRATCH / "total.npy").exists()
    assert not [item for item in collect(Store(tmp_path), "toy").garbage if item.path == key]  # a week of grace


def test_links_are_no_files_of_a_product(tmp_path: Path) -> None:
    @step(makes=CURVE, files="weights")
    def linked(rows: pl.DataFrame, run: Run) -> Output:
        (run.files / "weights").symlink_to("/etc/hostname")
        return Output(rows=rows.select(parents=pl.concat_list("row_id"), step=pl.lit(1), total=pl.lit(1.0)))

    with pytest.raises(StoreError, match="must be regular files, not links"):
        made("toy", [linked(words_stage("a"))], Store(tmp_path))


def test_gc_removes_a_product_with_its_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new = product(store, note="old"), product(store, note="new")
    removed = remove(store, collect(store, "toy", keep=0))
    assert store.table_directory(old.ref) in [item.path for item in removed]
    assert not store.table_directory(old.ref).exists()
    assert store.folder(new.ref).is_dir()


def test_a_stage_with_files_is_one_part() -> None:
    with pytest.raises(ConfigError, match="made in one part"):
        learn(words_stage("a"), Learning(), part_rows=2)
    with pytest.raises(TypeError, match="needs a parameter 'run'"):
        step(makes=CURVE, files="weights")(lambda rows: rows)


def test_needs_are_no_part_of_the_key(tmp_path: Path) -> None:
    manifest = product(Store(tmp_path))
    asking = step(makes=CURVE, files="weights", needs=Needs(threads=2, memory=1))(learn.function)
    again = made("toy", [asking(words_stage("a", "bc"), Learning())], Store(tmp_path))["learn"]
    assert again == manifest


def test_a_model_as_a_value_enters_the_key_by_its_weights(tmp_path: Path) -> None:
    from tiny_models import save_tiny_llama

    from normloom.core.models.protocol import ModelSpec
    from normloom.planning.keys import key_fields

    @step(makes=CURVE)
    def trains(rows: pl.DataFrame, *, policy: ModelSpec) -> pl.DataFrame:  # noqa: ARG001
        return rows

    def identity() -> dict[str, str]:
        policy = ModelSpec(model=str(save_tiny_llama(tmp_path / "tiny")), threads=2)
        stage = trains(words_stage("a"), policy=policy)
        return dict(key_fields("toy", stage, inputs=["x"], sides=[])["arguments"]["policy"])

    first = identity()
    assert first["weights"]
    assert "threads" not in first


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from normloom.store.store import Store
import test_products

def killer(event, arguments):
    if event == "open" and "/learn/" in str(arguments[0]) and sys.argv[2] in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(killer)
test_products.product(Store(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("moment", ["note.txt", ".part-00000.json", ".manifest.json", "never"])
def test_killed_at_any_moment_there_is_all_of_a_product_or_nothing(tmp_path: Path, moment: str) -> None:
    """The process ends itself by SIGKILL as it opens a file: of the product, of the part, of the manifest."""
    store = tmp_path / "store"
    command = [sys.executable, "-c", KILLED, str(store), moment, str(Path(__file__).parent)]
    ended = subprocess.run(command, check=False, timeout=120)
    assert ended.returncode == (0 if moment == "never" else -signal.SIGKILL)
    [key] = [path for path in (store / "toy" / "learn").iterdir() if path.is_dir()]
    if moment != "never":
        assert Store(store).current("toy", "learn") is None
        assert len(np.load(key / SCRATCH / "total.npy", allow_pickle=False)) == STEPS  # it is not trained again
    manifest = product(Store(store))
    assert sorted(manifest.attached) == ["inner/weights.npy", "note.txt"]
    assert len(list(key.glob("files-*"))) == 1
    assert not list(key.glob(".files-*"))
    assert not list(verify(Store(store)))


def test_progress_shows_figures_speed_and_time_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        product(Store(tmp_path))
    [last] = [one.getMessage() for one in caplog.records if "step 6 of 6" in one.getMessage()]  # said once
    assert last.startswith("learn: step 6 of 6, loss 0.1667")
    assert "tokens/s" in last


def test_files_are_told_in_diffs_pages_and_tables(tmp_path: Path) -> None:
    from normloom.cli.commands.reading.tables import _described
    from normloom.lineage.diff import changed_files
    from normloom.prefect.pages.lineage_page import Lineage, stage_page

    store = Store(tmp_path)
    first, second = product(store, note="first"), product(store, note="the second")
    note = first.attached["note.txt"]
    assert changed_files(first, second) == {"note.txt": (note, second.attached["note.txt"])}
    assert _described(first, store)["files"]["note.txt"] == {"bytes": 5, "sha256": note.sha256}
    assert _described(first, store)["product"] == "weights"
    assert first.attached_told.startswith("weights: 2 files, ")
    page = stage_page(Lineage(system="toy", build="test", graph={"learn": []}, manifests={"learn": first}), "learn")
    assert "## Files" in page
    assert f"`{first.attached['note.txt'].sha256[:12]}`" in page
