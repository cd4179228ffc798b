"""What each method makes of each item in each scenario."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.core.fan_out import each
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output
from normloom.schemas.media import modality_tables
from normloom.schemas.media.modality_tables import CONCAT, IMAGE, IMAGE_ONLY, LATE, METHODS, SHARED, TEXT, TEXT_ONLY
from normloom.steps.step import step
from normloom.tasks.media.fitted import file_name
from normloom.tasks.metrics.clustered import macro_f1
from normloom.tasks.missing_modality.fits import arrays, parts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


UNSEEN = 0.5  # probability of harm if nothing is seen


@step(
    makes=modality_tables.PREDICTIONS,
    fan_out=each(len(METHODS)),
    libraries=("torch", "safetensors", "numpy"),
)
def predictions(
    rows: pl.DataFrame,
    items: pl.DataFrame,
    text: pl.DataFrame,
    image: pl.DataFrame,
    seen_text: pl.DataFrame | None = None,
    *,
    fits: ProductFiles,
) -> Output:
    """Return the probability of harm by each method for each row of a scenario.

    An item is judged by the networks that learned from neither its fold nor the development fold. `seen_text` are the
    vectors of the texts that are seen if these are others than the networks learned from (what OCR read). A method
    none of whose modalities is there gives 0.5, in every fold the same: shares of harmful training items would differ,
    and rank the folds against their labels.
    """
    import numpy as np

    vectors = arrays(items, text, image)
    looks = dict(vectors)
    if seen_text is not None:
        looks[TEXT] = _replaced(vectors[TEXT], items, seen_text)
    position = {item: number for number, item in enumerate(items["item_id"])}
    folds = int(items["fold"].max() or 0) + 1  # type: ignore[arg-type]  # an integer
    fold_of = items["fold"].to_numpy()[[position[item] for item in rows["item_id"]]]
    labels = items["label"].to_numpy()
    made = []
    for fold in range(folds):
        asked = rows.filter(fold_of == fold)
        if asked.is_empty():
            continue
        learn, development, _ = parts(items, fold, folds)
        networks = {
            name: _network(fits, name, fold, vectors, learn) for name in (SHARED, CONCAT, TEXT_ONLY, IMAGE_ONLY)
        }
        seen = {one: _positions(asked[f"{one}_of"], position) for one in (TEXT, IMAGE)}
        found = judged(
            networks,
            {one: looks[one][np.maximum(where, 0)] for one, where in seen.items()},
            {one: where >= 0 for one, where in seen.items()},
        )
        whole = {one: array[development] for one, array in vectors.items()}
        every = np.ones(int(development.sum()), dtype=bool)
        judged_there = judged(networks, whole, {TEXT: every, IMAGE: every})
        for method, probabilities in found.items():
            made.append(
                asked.select(
                    "row_id",
                    "scenario_id",
                    "item_id",
                    method=pl.lit(method),
                    probability=pl.Series(probabilities),
                    threshold=pl.lit(best_threshold(labels[development], judged_there[method])),
                    content=pl.lit(method),
                )
            )
    output = pl.concat(made)
    return Output(rows=output, attempts=output.height)


def judged(networks: Mapping[str, Any], vectors: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Array]:
    """Return the probability by each method, (rows,) each; vectors of what is not `present` are not looked at."""
    import numpy as np
    import torch

    given = {one: torch.from_numpy(array) for one, array in vectors.items()}
    there = {one: torch.from_numpy(array) for one, array in present.items()}
    with torch.inference_mode():
        raw = {name: torch.sigmoid(network(given, there)).double().numpy() for name, network in networks.items()}
    found = {name: np.where(np.isnan(raw[name]), UNSEEN, raw[name]) for name in (SHARED, TEXT_ONLY, IMAGE_ONLY)}
    neither = ~(present[TEXT] | present[IMAGE])
    both = np.stack([raw[TEXT_ONLY], raw[IMAGE_ONLY]])
    heard = ~np.isnan(both)
    mean = np.where(heard, both, 0).sum(0) / np.maximum(heard.sum(0), 1)
    found[CONCAT] = np.where(neither, UNSEEN, raw[CONCAT])
    found[LATE] = np.where(neither, UNSEEN, mean)
    return {method: found[method] for method in METHODS}


def best_threshold(labels: npt.NDArray[np.int8], probabilities: Array) -> float:
    """Return the threshold with the best macro-F1 (ties go to the one nearest to 0.5); 0.5 without items."""
    import numpy as np

    if not len(labels):
        return 0.5
    levels = np.unique(probabilities)
    cuts = np.concatenate([[0.5], (levels[1:] + levels[:-1]) / 2])
    said, true = probabilities[None] >= cuts[:, None], labels[None] == 1
    counts = np.stack([said & true, said & ~true, ~said & true, ~said & ~true], axis=2).sum(1).astype(np.float64)
    scores = macro_f1(counts)
    best = np.flatnonzero(np.isclose(scores, scores.max()))
    return float(min(cuts[best], key=lambda cut: abs(cut - 0.5)))


def _network(fits: ProductFiles, name: str, fold: int, vectors: Mapping[str, Any], learn: Any) -> Any:
    from safetensors.torch import load_file

    from normloom.tasks.missing_modality.network import new_network, tensors

    weights = load_file(fits.path / file_name(name, fold))
    width = weights["head.weight"].shape[1]
    network = new_network(name, {one: a[learn] for one, a in tensors(vectors).items()}, width=width, dropout=0.0)
    network.load_state_dict(weights)
    return network.eval()


def _positions(items: pl.Series, position: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Return where the vectors of items are, -1 for none."""
    import numpy as np

    return np.array([-1 if item is None else position[item] for item in items], dtype=np.int64)


def _replaced(vectors: Any, items: pl.DataFrame, seen: pl.DataFrame) -> Any:
    import numpy as np

    others = dict(seen.select("item_id", "vector").iter_rows())
    rows = [np.array(others.get(item, own), np.float32) for item, own in zip(items["item_id"], vectors, strict=True)]
    return np.stack(rows)
