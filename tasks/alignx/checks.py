"""Checks of AlignX, as METHODS names them: what each asks, what was found, whether it passed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output
from normloom.run.checks.own import LEAST_VARIATION
from normloom.schemas.training import preference_tables
from normloom.schemas.training.alignx_tables import CALIBRATED, ROUTED_MIX
from normloom.schemas.training.routing_tables import GLOBAL, INJECTED, PLAIN
from normloom.steps.step import step
from normloom.tasks.alignx.probe import CHANCE, PROBE
from normloom.tasks.missing_modality.checks import check_vectors
from normloom.tasks.preferences.checks import STARTS_AT_ZERO, checked, checks_output
from normloom.tasks.tuning.lora import ADAPTER

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Row = dict[str, object]


@step(
    makes=preference_tables.CHECKED,
    name="routing_checks",
    libraries=("numpy",),
    fan_out=free("one row for each check"),
)
def check_routing(
    rows: pl.DataFrame,
    states: pl.DataFrame,
    probe: pl.DataFrame,
    curve: pl.DataFrame,
    weighed: pl.DataFrame,
    calibrators: pl.DataFrame,
) -> Output:
    """Return the checks of states and router; `rows` are the injected prompts.

    Each row plain once and injected once (C1), states of one width without a constant column (C12), a probe that beats
    chance, a router that changed and whose loss fell (C4), weights that vary and not one expert always (C9),
    temperatures that do not raise the calibration error of the development rows.
    """
    return checks_output(iter([*_states(rows, states, probe), *_router(curve, weighed), *_calibrators(calibrators)]))


@step(
    makes=preference_tables.CHECKED,
    name="expert_checks",
    libraries=("safetensors", "numpy"),
    fan_out=free("one row for each check"),
)
def check_experts(rows: pl.DataFrame, *replies: pl.DataFrame, experts: RolesSpec) -> Output:
    """Return the checks of experts and replies; `rows` are the curves of the experts.

    Weights that changed and a loss that fell (C4), a held-out loss below the base's, adapters that differ (C5), and
    replies that differ between each two systems (C5).
    """
    return checks_output(iter([*_experts(rows, experts), *_replies(pl.concat(replies) if replies else None)]))


def _states(rows: pl.DataFrame, states: pl.DataFrame, probe: pl.DataFrame) -> Iterator[Row]:
    counts = rows.group_by("prompt_id").agg(plain=(pl.col("variant") == PLAIN).sum(), both=pl.len())
    once = counts.filter((pl.col("plain") == 1) & (pl.col("both") == len((PLAIN, INJECTED)))).height
    yield checked(
        "C1",
        "injected",
        "each prompt is plain once and injected once",
        found=f"{once:,} of {counts.height:,} prompts",
        passed=once == counts.height,
    )
    yield from check_vectors((states,))
    told: Mapping[str, Row] = {row["metric"]: row for row in probe.iter_rows(named=True)}
    accuracy, low, chance = told[PROBE]["value"], told[PROBE]["low"], told[CHANCE]["value"]
    yield checked(
        "probe",
        "states",
        "the axis of test prompts can be read from their states, better than by chance",
        found=f"{_number(accuracy)} right (from {_number(low)}), {_number(chance)} by chance",
        passed=isinstance(low, float) and isinstance(chance, float) and low > chance,
    )


def _router(curve: pl.DataFrame, weighed: pl.DataFrame) -> Iterator[Row]:
    import numpy as np

    first, last = curve.sort("epoch").row(0, named=True), curve.sort("epoch").row(-1, named=True)
    yield checked(
        "C4",
        "router",
        "weights changed and the loss fell",
        found=f"loss {first['loss']:.3f} to {last['loss']:.3f}, "
        f"{'other' if first['weights'] != last['weights'] else 'the same'} weights",
        passed=first["weights"] != last["weights"] and last["loss"] < first["loss"],
    )
    for of, weights in (
        ("weights", np.exp(np.array(weighed["log_probabilities"].to_list()))),
        ("gate", np.array(weighed["gate"].to_list())),
    ):
        likeliest = len(np.unique(weights.argmax(1)))
        least = float(_variation(weights).min())
        yield checked(
            "C9",
            of,
            f"not always one expert, and each weight varies by at least {LEAST_VARIATION}",
            found=f"{likeliest} of {weights.shape[1]} are the likeliest for some; least variation {least:.2f}",
            passed=likeliest > 1 and least >= LEAST_VARIATION,
        )


def _calibrators(calibrators: pl.DataFrame) -> Iterator[Row]:
    for (kind,), own in calibrators.group_by("kind", maintain_order=True):
        before, after = own["ece_before"][0], own["ece_after"][0]
        low, high = own["temperature"].min(), own["temperature"].max()
        yield checked(
            "calibration",
            str(kind),
            "the calibration error of development rows is not above what it was",
            found=f"{before:.3f} to {after:.3f}, "
            + (f"T = {_number(low)}" if kind == GLOBAL else f"T = {_number(low)} to {_number(high)}"),
            passed=bool(after <= before),
        )


def _experts(rows: pl.DataFrame, experts: RolesSpec) -> Iterator[Row]:
    from safetensors.numpy import load_file

    digests = {}
    for (axis,), curve in rows.sort("step").group_by("axis", maintain_order=True):
        files = experts.roles[str(axis)]
        weights = load_file(files.path / ADAPTER) if isinstance(files, ProductFiles) else {}
        digests[axis] = _digest(weights)
        moved = any(weight.any() for name, weight in weights.items() if STARTS_AT_ZERO in name)
        losses = curve["loss"].drop_nulls()
        yield checked(
            "C4",
            f"expert of {axis}",
            "weights changed and the loss fell",
            found=f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps, "
            f"{'other' if moved else 'the same'} weights",
            passed=moved and losses[-1] < losses[0],
        )
        held_out = curve["held_out_loss"].drop_nulls()
        if len(held_out):
            yield checked(
                "held out",
                f"expert of {axis}",
                "the loss of held-out replies is below that of the base",
                found=f"{held_out[0]:.3f} to {held_out[-1]:.3f}",
                passed=held_out[-1] < held_out[0],
            )
    yield checked(
        "C5",
        "experts",
        "adapters differ",
        found=f"{len(set(digests.values()))} of {len(digests)} are different",
        passed=len(set(digests.values())) == len(digests),
    )


def _replies(replies: pl.DataFrame | None) -> Iterator[Row]:
    if replies is None:
        return
    texts = {
        str(system): tuple(own.sort("prompt_id")["raw_reply"])
        for (system,), own in replies.group_by("system", maintain_order=True)
    }
    apart = [texts.pop(CALIBRATED, ()), texts.get(ROUTED_MIX, ())]
    alike = [f"{one} and {other}" for one in texts for other in texts if one < other and texts[one] == texts[other]]
    yield checked(
        "C5",
        "replies",
        "each two systems of other weights differ in some reply",
        found=f"{len(texts)} systems" + (f"; the same: {'; '.join(alike)}" if alike else ""),
        passed=not alike,
    )
    if all(apart):
        differ = sum(one != other for one, other in zip(*apart, strict=True))
        yield checked(
            "C5",
            CALIBRATED,
            "temperatures change some reply (none if an engine serves the likeliest expert alone)",
            found=f"{differ} of {len(apart[0])} replies",
            passed=differ > 0,
        )


def _variation(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the coefficient of variation of each column."""
    spread: npt.NDArray[np.float64] = weights.std(0) / weights.mean(0)
    return spread


def _digest(weights: Mapping[str, npt.NDArray[np.float32]]) -> str:
    told = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        told.update(name.encode() + weight.tobytes())
    return told.hexdigest()


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "none"
