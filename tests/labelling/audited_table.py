"""A table that a judge has given verdicts, of which the truth is known."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl

import normloom as nl
from normloom.core.stage import Stage
from normloom.labelling.queue import LabelQueue, open_queue
from normloom.settings.faces.audits import Audit, audit_of
from normloom.store.store import Store
from normloom.tasks.audit.auditing import AuditView
from normloom.testing import made
from normloom.testing.builds import build_id, built

ROWS = 240
VIEW = AuditView(verdict="alignment", of="misaligned", show=("text",), by=("generator", "labels"), margin="margin")


def truths() -> dict[str, str]:
    """Return what is true of each text: every third is misaligned."""
    return {f"response {number}": "misaligned" if number % 3 == 0 else "aligned" for number in range(ROWS)}


def table(changed: str = "") -> Stage:
    """Return verdicts of a judge that errs at every tenth row, and is unsure there."""
    random = np.random.default_rng(1)
    rows = []
    for number, (text, truth) in enumerate(truths().items()):
        wrong = number % 10 == 7
        other = {"aligned": "misaligned", "misaligned": "aligned"}[truth]
        rows.append(
            {
                "text": f"{text}{changed}",
                "alignment": other if wrong else truth,
                "generator": f"g{number % 2}",
                "labels": [{"label": f"l{number % 4}", "probability": 0.5}],
                "margin": float(random.uniform(0, 0.3) if wrong else random.uniform(0.2, 1)),
            }
        )
    return nl.table(pl.DataFrame(rows), name="responses")


def released(store: Store, changed: str = "", number: int = 1) -> None:
    built(store, table(changed), build=build_id(number), system="toy")


def audit(store: Store, **asked: Any) -> Audit:
    return audit_of(store, "toy", VIEW, **{"budget": 60, **asked})


def queue_of(found: Audit, store: Store) -> LabelQueue:
    with suppress(nl.WaitingError):
        made(found.name, [found.end], store)
    return open_queue(store, found.name)


def answer(queue: LabelQueue) -> int:
    """Answer all rows as the truth is; return how many."""
    known = truths()
    rows = queue.next("ada", ROWS)
    for row in rows:
        queue.record(row, {"truth": known[row.shown["text"].removesuffix("!")]}, "ada")
    return len(rows)


def figures(found: Audit, store: Store) -> pl.DataFrame:
    return store.scan(made(found.name, [found.end], store)["audit_figures"].ref).collect()
