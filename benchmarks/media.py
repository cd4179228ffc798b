"""Ingest, encoding and training of images: images per second, memory and store size, against a plain script.

Images are generated: noise as JPEG of about 100 kB. `ingest` is `read_media`: each image is found, digested, fully
decoded, hashed and stored. `encode` is `encode_images` through the stage runner; the script calls the same encoder on
the same bytes in batches of the same size. `train` is ConLLM's refiners against their training loop alone. Each runs
in a process of its own, in turns; `cpu_ratio` is the stage's images per CPU second over the script's.
`--peer ray` runs Ray Data's image pipeline (`read_binary_files`, `map_batches`) with the same encoder.
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import shutil
import time
from argparse import Namespace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from common import Clock, Report, parser, start_ray
from PIL import Image

from normloom.core.models.protocol import ModelSpec
from normloom.models import load_model
from normloom.readers.media import locate_media
from normloom.store.store import Store
from normloom.tasks.media.encode import MediaEncoding, encode_images
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing import made

ENCODER = ModelSpec(engine="vision", model="efficientnet-lite0", device="cpu")
SIDE, QUALITY = 315, 92  # of an image of noise, about 100 kB
PART = 64


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=20_000, help="images to ingest")
    arguments.add_argument("--encoded", type=int, default=512, help="how many of them to encode")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--repeats", type=int, default=3, help="of encoding and training; 0: ingest alone")
    arguments.add_argument("--peer", choices=["ray"], action="append", default=[])
    given = arguments.parse_args()
    report = Report(given.json)
    with TemporaryDirectory(prefix="normloom-bench-") as name:
        place = Path(name)
        report.note(f"making {given.images} images")
        images(place / "images", given.images)
        images(place / "few", given.encoded)
        report.note("ingest")
        report.add("Ingest: found, digested, decoded to the end, hashed, stored", [alone("ingest", given, place)])
        if not given.repeats:
            report.end()
            return
        runs: dict[str, list[dict[str, float]]] = {"script": [], "stage": [], **{peer: [] for peer in given.peer}}
        for repeat in range(given.repeats):
            for run in list(runs) if repeat % 2 == 0 else list(reversed(runs)):
                report.note(f"repeat {repeat + 1} of {given.repeats}: encode by {run}")
                runs[run].append(alone(f"encode_{run}", given, place))
        lines = [
            {"encode": run, **{what: median(one[what] for one in some) for what in some[0]}}
            for run, some in runs.items()
        ]
        for line in lines:
            line["ratio"] = line["images/s"] / lines[0]["images/s"]
            line["cpu_ratio"] = line["images/cpu_s"] / lines[0]["images/cpu_s"]
        report.add("Encode by the stage against a plain script, medians", lines)
        trained: dict[str, list[dict[str, float]]] = {"script": [], "stage": []}
        for repeat in range(given.repeats):
            for run in ("script", "stage") if repeat % 2 == 0 else ("stage", "script"):
                report.note(f"repeat {repeat + 1} of {given.repeats}: train by {run}")
                trained[run].append(alone(f"train_{run}", given, place))
        lines = [
            {"train": run, **{what: median(one[what] for one in some) for what in some[0]}}
            for run, some in trained.items()
        ]
        for line in lines:
            line["cpu_ratio"] = line["rows/cpu_s"] / lines[0]["rows/cpu_s"]
        report.add("ConLLM's training by stages against its loop alone, medians", lines)
    report.end()


def images(folder: Path, count: int) -> None:
    """Write images of noise, each another: a block of noise that is as good as any, and its number."""
    folder.mkdir()
    drawing = np.random.default_rng(0)
    for number in range(count):
        pixels = drawing.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=QUALITY)


def alone(run: str, given: Namespace, place: Path) -> dict[str, float]:
    """Run in a process of its own and return what it measured, with its peak memory."""
    context = multiprocessing.get_context("spawn")
    told, end = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(run, given, place, end))
    process.start()
    end.close()
    found: dict[str, float] = told.recv()
    process.join()
    return found


def _alone(run: str, given: Namespace, place: Path, end: Any) -> None:
    import torch

    torch.set_num_threads(given.threads)
    own = importlib.import_module(Path(__file__).stem)  # keys are made of sources that a module of this name has
    found: dict[str, float] = getattr(own, run)(given, place)
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    end.send(found)


# -- ingest -----------------------------------------------------------------------------------------------------------


def ingest(given: Namespace, place: Path) -> dict[str, float]:  # noqa: ARG001  # one signature
    """Read all images into a new store."""
    clock, source = Clock(everything=True), place / "images"
    store = Store(place / "ingested")
    with clock.running():
        manifest = made("bench", [read_media(Media(), source=locate_media(source))], store)["media"]
    given_bytes = sum(path.stat().st_size for path in source.iterdir())
    stored = sum(path.stat().st_size for path in (place / "ingested").rglob("*") if path.is_file())
    rows = manifest.count("rows")
    shutil.rmtree(place / "ingested")
    return {
        "images": rows,
        "images/s": rows / clock.wall,
        "images/cpu_s": rows / clock.cpu,
        "MB/s": given_bytes / clock.wall / 1e6,
        "kB/image": given_bytes / rows / 1e3,
        "store/bytes": stored / given_bytes,
    }


# -- encode -----------------------------------------------------------------------------------------------------------


def encode_stage(given: Namespace, place: Path) -> dict[str, float]:
    """Encode by the stage runner, keys, parts, checks and commit included."""
    store = Store(place / f"encoded-{time.time_ns()}")
    media = read_media(Media(), source=locate_media(place / "few"))
    made("bench", [media], store)
    items = named(media)
    made("bench", [items], store)
    from normloom.steps.products import files_of

    spec = ENCODER.model_copy(update={"threads": given.threads})
    stage = encode_images(items, MediaEncoding(part_rows=PART), spec, media=files_of(media), encoder=spec.model)
    clock = Clock(everything=True)
    with clock.running():
        manifest = made("bench", [stage], store)["image_vectors"]
    return _rates(manifest.count("rows"), clock)


def encode_script(given: Namespace, place: Path) -> dict[str, float]:
    """Encode as a plain script does: read files, call the encoder on as many at a time, keep the vectors."""
    clock = Clock(everything=True)
    with clock.running():
        model: Any = load_model(ENCODER, threads=given.threads)
        paths = sorted((place / "few").iterdir())
        vectors = [
            model.embed_images([path.read_bytes() for path in paths[start : start + PART]])
            for start in range(0, len(paths), PART)
        ]
        np.save(place / "vectors.npy", np.concatenate(vectors))
    return _rates(len(paths), clock)


def encode_ray(given: Namespace, place: Path) -> dict[str, float]:
    """Encode by Ray Data with one actor that holds the same encoder."""
    start_ray(2)
    import ray

    class Encode:
        def __init__(self) -> None:
            self.model: Any = load_model(ENCODER, threads=given.threads)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"vector": self.model.embed_images(list(batch["bytes"]))}

    clock = Clock(everything=True)
    with clock.running():
        data = ray.data.read_binary_files(str(place / "few"))
        data = data.map_batches(Encode, batch_size=PART, concurrency=1, num_cpus=1)
        out = place / f"ray-{time.time_ns()}"
        data.write_parquet(str(out))
        rows = pl.scan_parquet(out / "*.parquet").select(pl.len()).collect().item()
    ray.shutdown()
    return _rates(rows, clock)


def _rates(rows: int, clock: Clock) -> dict[str, float]:
    return {"images": rows, "images/s": rows / clock.wall, "images/cpu_s": rows / clock.cpu}


def named(media: Any) -> Any:
    """Return a stage of items: media under the name of their origin."""
    from normloom.core.contract import Contract
    from normloom.core.stage import NoArguments, Stage

    columns = {"item_id": pl.String(), "shard": pl.String(), "offset": pl.Int64(), "size": pl.Int64()}
    return Stage(
        name="items", function=_named, arguments=NoArguments(), contract=Contract(columns=columns), inputs=(media,)
    )


def _named(rows: pl.DataFrame, arguments: Any) -> Any:  # noqa: ARG001  # it has none
    from normloom.core.stage import Output

    return Output(rows=rows.select("row_id", "shard", "offset", "size", item_id="origin"))


# -- train ------------------------------------------------------------------------------------------------------------


def _study(place: Path, *, folds: int = 2) -> Any:
    from normloom.settings.settings import stages_for

    store = Store(place / f"study-{time.time_ns()}")
    settings = [f"items.folds={folds}", "align.epochs=20", "refine.epochs=10"]
    return store, {
        one.name: one for one in _all(stages_for("conllm", profile="local", assignments=settings, store=store).ends)
    }


def _all(ends: Any) -> Any:
    from normloom.steps.graph import stages_of

    return stages_of(*ends)


def train_stage(given: Namespace, place: Path) -> dict[str, float]:  # noqa: ARG001  # one signature
    """Train aligners and refiners by the stage runner."""
    store, stages = _study(place)
    made("conllm", [stages["pairs"], stages["spectral_vectors"], stages["speaker_vectors"]], store)
    clock = Clock(everything=True)
    with clock.running():
        tables = made("conllm", [stages["refiners"]], store)
    return _trained(tables["refiners"].count("rows"), clock)


def train_script(given: Namespace, place: Path) -> dict[str, float]:  # noqa: ARG001  # one signature
    """Run the same training loops on the same rows, and nothing around them."""
    from functools import partial

    from safetensors.torch import save_file

    from normloom.core.models.product_model import ProductFiles
    from normloom.tasks.deepfakes.aligners import _trained as align_one
    from normloom.tasks.deepfakes.aligners import view_matrices
    from normloom.tasks.deepfakes.held_out import held_out
    from normloom.tasks.deepfakes.refiners import VARIANTS
    from normloom.tasks.deepfakes.refiners import _trained as refine_one
    from normloom.tasks.media.fitted import file_name, one_thread

    store, stages = _study(place)
    tables = made("conllm", [stages["pairs"], stages["spectral_vectors"], stages["speaker_vectors"]], store)
    rows, pairs, *vectors = (
        store.scan(tables[name].ref).collect() for name in ("items", "pairs", "spectral_vectors", "speaker_vectors")
    )
    views = ("spectral", "speaker")
    weights = place / f"weights-{time.time_ns()}"
    weights.mkdir()
    clock, epochs = Clock(everything=True), 0
    align, refine = stages["aligners"].arguments, stages["refiners"].arguments
    with clock.running(), one_thread():
        matrices = view_matrices(rows, views, vectors)
        jobs = held_out(rows)
        files = ProductFiles(model="a", product="a", folder=str(weights))
        for held in jobs:
            network, _ = align_one(rows, matrices, pairs, align, held)
            save_file(network.state_dict(), weights / file_name("aligner", *held))
        for train, name in (
            (partial(refine_one, rows, matrices, refine, variant, held, files, None), (variant, *held))
            for held in jobs
            for variant in VARIANTS
        ):
            scorer, curve = train()
            epochs += len(curve)
            save_file(scorer.state_dict(), weights / file_name(*map(str, name)))
    return _trained(epochs, clock)


def _trained(rows: int, clock: Clock) -> dict[str, float]:
    return {"rows": rows, "rows/s": rows / clock.wall, "rows/cpu_s": rows / clock.cpu}


if __name__ == "__main__":
    main()
