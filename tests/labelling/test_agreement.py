"""Agreement of two people, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_answers import published, rows_of, source, tone

from normloom.core.errors import ConfigError
from normloom.labelling.queue import LabelQueue
from normloom.store.store import Store
from normloom.tasks.labels.agreement import agreement
from normloom.testing import made


def answered(tmp_path: Path, texts: int) -> tuple[Store, LabelQueue]:
    store = Store(tmp_path)
    rows = source([f"text {number}" for number in range(texts)], [0.5] * texts)
    return store, published(store, rows, people=2)


def test_agreement_of_two_people_by_hand(tmp_path: Path) -> None:
    store, queue = answered(tmp_path, 6)
    for place, row in enumerate(queue.next("ada", 6)):
        queue.record(row, {"polite": "yes" if place < 3 else "no", "strength": place}, "ada")
        queue.record(row, {"polite": "yes" if place < 2 else "no", "strength": place + (place == 0)}, "bob")
    table = made("toy", [agreement(tone())], store)["agreement_tone"]
    found = {(row["metric"], row["of"]): row for row in rows_of(store, table).iter_rows(named=True)}
    # One of six rows differs: D_o = 2/12. Five times yes, seven times no: D_e = 2 * 5 * 7 / (12 * 11).
    assert found["alpha", "polite"]["value"] == pytest.approx(1 - (2 / 12) / (70 / 132))
    assert found["percent_agreement", "polite"]["value"] == pytest.approx(5 / 6)
    # Pairs (0,1) (1,1) (2,2) .. (5,5): D_o = 2 * 1 / 12; D_e over all pairs of 0 1 1 1 2 2 3 3 4 4 5 5: sum of squared
    # distances 2 * (12 * 111 - 31 ** 2) / (12 * 11)
    assert found["alpha", "strength"]["value"] == pytest.approx(1 - (2 / 12) / (2 * (12 * 111 - 31**2) / (12 * 11)))
    assert {row["rows"] for row in found.values()} == {6}


def test_one_person_agrees_with_nobody(tmp_path: Path) -> None:
    store, queue = answered(tmp_path, 6)
    for row in queue.next("ada", 6):
        queue.record(row, {"polite": "yes"}, "ada")
    table = made("toy", [agreement(tone())], store)["agreement_tone"]
    told = {row["metric"]: row["undefined"] for row in rows_of(store, table).filter(of="polite").iter_rows(named=True)}
    assert told == {
        "alpha": "no item has answers of two known raters",
        "percent_agreement": "no row has answers of two people",
    }


def test_few_rows_have_no_figure(tmp_path: Path) -> None:
    store, queue = answered(tmp_path, 2)
    for who in ("ada", "bob"):
        for row in queue.next(who, 2):
            queue.record(row, {"polite": "yes"}, who)
    table = made("toy", [agreement(tone())], store)["agreement_tone"]
    told = rows_of(store, table).filter(of="polite", metric="percent_agreement")
    assert told["undefined"].to_list() == ["fewer than 5 rows with answers of two people"]


def test_it_is_measured_of_labels_only() -> None:
    with pytest.raises(ConfigError, match=r"needs nl\.labels\(\.\.\.\), not the stage 'texts'"):
        agreement(source())
