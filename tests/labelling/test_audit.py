"""An audit: rows drawn into a queue, answers read back, figures corrected; bounds that a release must reach."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from audited_table import ROWS, VIEW, answer, audit, figures, queue_of, released, table, truths

import normloom as nl
from normloom.core.errors import ReleaseError, UsageError
from normloom.exports.audited import audited
from normloom.exports.card import audited as card_section
from normloom.settings.faces.audits import audit_of, audited_figures
from normloom.store.store import Store
from normloom.tasks.audit.auditing import AuditView
from normloom.tasks.audit.bounds import Bound, missed
from normloom.testing import made
from normloom.testing.builds import build_id, built


@pytest.fixture
def store(tmp_path: Path) -> Store:
    released(Store(tmp_path))
    return Store(tmp_path)


def one(rows: pl.DataFrame, **having: str) -> dict[str, object]:
    [row] = rows.filter(**{"slice_by": "overall", **having}).iter_rows(named=True)
    return row


def test_answers_correct_what_the_judge_says(store: Store) -> None:
    found = audit(store)
    with pytest.raises(nl.WaitingError, match="60 rows wait for answers: normloom label audit_toy"):
        made(found.name, [found.end], store)
    queue = queue_of(found, store)
    assert "alignment" not in queue.rows.select(queue.asking.show).columns  # people do not see the verdict
    assert answer(queue) == 60
    rows = figures(found, store)
    true = sum(truth == "misaligned" for truth in truths().values()) / ROWS
    judged = one(rows, metric="share", of="misaligned", axis="as judged")
    powered = one(rows, metric="share", of="misaligned", axis="prediction-powered")
    assert isinstance(judged["value"], float)
    assert isinstance(powered["value"], float)
    assert isinstance(powered["low"], float)
    assert isinstance(powered["high"], float)
    assert abs(powered["value"] - true) < abs(judged["value"] - true)
    assert powered["low"] <= true <= powered["high"]
    assert powered["rows"] == 60
    assert one(rows, metric="random_answers", of="misaligned")["value"] > 100  # type: ignore[operator]  # a number
    groups = rows.filter(pl.col("slice_by") != "overall")
    assert set(groups["slice_by"]) == {"generator", "labels"}
    assert set(groups.filter(slice_by="labels")["slice"]) == {"l0", "l1", "l2", "l3"}
    assert groups.filter(axis="Rogan-Gladen")["undefined"].null_count() == groups.filter(axis="Rogan-Gladen").height


def test_unsure_rows_are_asked_about_more_often(store: Store) -> None:
    rows = queue_of(audit(store), store).rows
    table = made("audit_toy", [audit(store).end.inputs[0].inputs[0].inputs[0]], store)["frame"]
    whole = dict(store.scan(table.ref).collect()["audit_stratum"].value_counts().iter_rows())
    drawn = dict(rows["audit_stratum"].value_counts().iter_rows())
    assert set(whole) == set(drawn)
    share = {name: drawn[name] / whole[name] for name in whole}
    low = [value for name, value in share.items() if "low margin" in name]
    high = [value for name, value in share.items() if "high margin" in name]
    assert sum(low) / len(low) > sum(high) / len(high)


def test_a_larger_budget_keeps_the_answers_and_asks_for_more(store: Store) -> None:
    first = queue_of(audit(store), store)
    answer(first)
    more = queue_of(audit(store, budget=90), store)
    assert set(first.rows["asked"]) <= set(more.rows["asked"])
    assert (more.progress().answered, more.progress().waiting) == (60, 30)


def test_fewer_answers_may_be_enough(store: Store) -> None:
    queue = queue_of(audit(store), store)
    for row in queue.next("ada", 50):
        queue.record(row, {"truth": "aligned"}, "ada")
    with pytest.raises(nl.WaitingError, match="10 rows wait"):
        figures(audit(store), store)
    rows = figures(audit(store, need=50), store)
    assert one(rows, metric="share", of="aligned", axis="prediction-powered")["rows"] == 50


def test_an_audit_of_a_precision_asks_about_that_verdict_only(store: Store) -> None:
    found = audit(store, figure="precision", budget=40)
    queue = queue_of(found, store)
    assert set(queue.rows["audit_verdict"]) == {"misaligned"}
    answer(queue)
    rows = figures(found, store)
    assert one(rows, metric="precision", of="misaligned")["value"] is not None
    share = one(rows, metric="share", of="misaligned", axis="prediction-powered")
    assert share["undefined"] == "no answers about rows of some verdict"


def test_a_release_that_misses_a_bound_is_not_exported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = audit(store, bounds=[Bound.parse("precision misaligned 0.95")])
    answer(queue_of(found, store))
    lacking = list(missed(figures(found, store), found.bounds))
    assert len(lacking) == 1
    assert lacking[0].startswith("precision of misaligned at least 0.95, lower bound: it is 0.")
    with pytest.raises(ReleaseError, match=r"misses 1 bounds of its audit: precision of misaligned at least 0\.95"):
        audited(store, found.table)
    held = audit(store, bounds=[Bound.parse("precision misaligned 0.3")])
    figures(held, store)
    rows = audited(store, held.table)
    assert rows is not None
    monkeypatch.setattr(card_section, "SHOWN", 1)
    card = card_of(tmp_path)
    assert "## Audit" in card
    assert re.search(r"^And \d+ more\.$", card, re.MULTILINE)
    assert "People answered 60 rows" in card
    assert "| share | misaligned | prediction-powered |" in card
    released(store, changed="!", number=2)
    table = store.current("toy", "responses")
    assert table
    assert audited_figures(store, table) is None
    with pytest.raises(ReleaseError, match="has not been audited: run normloom audit toy"):
        audited(store, table)


def card_of(tmp_path: Path) -> str:
    from normloom.exports.export import export

    export(Store(tmp_path), "toy", tmp_path / "out")
    return (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("store")
def test_a_release_without_an_audit_is_exported_as_before(tmp_path: Path) -> None:
    assert "## Audit" not in card_of(tmp_path)


@pytest.mark.parametrize(
    ("view", "asked", "why"),
    [
        ({"verdict": "judge"}, {}, "has no column 'judge'; available: row_id, parents, text"),
        ({"verdict": "text"}, {}, "column 'text' has 240 values; an audit needs 2 to 6 verdicts"),
        ({}, {"of": "wrong"}, "unknown verdict 'wrong'; column 'alignment' has aligned, misaligned"),
        ({}, {"stage": "judged"}, "toy has no table 'judged'"),
    ],
)
def test_what_cannot_be_audited_is_refused(store: Store, view: dict[str, str], asked: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        audit_of(store, "toy", AuditView(**{**VIEW.model_dump(), **view}), budget=60, **asked)  # type: ignore[arg-type]  # names


@pytest.mark.parametrize("text", ["", "precision", "precision 0.9", "recall x 0.9", "precision x 90", "precision x y"])
def test_bounds_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected FIGURE VERDICT NUMBER"):
        Bound.parse(text)
    assert str(Bound.parse("precision misaligned 0.9")) == "precision of misaligned at least 0.9, lower bound"


def test_a_budget_below_two_for_each_stratum_is_refused(store: Store) -> None:
    found = audit(store, budget=3)
    with pytest.raises(nl.NormloomError, match=r"a budget of 3 is less than 2 for each of \d+ strata: raise --budget"):
        made(found.name, [found.end], store)


LABELS = pl.List(pl.Struct({"label": pl.String, "probability": pl.Float64}))


@nl.step(makes={"text": pl.String, "alignment": pl.String, "generator": pl.String, "labels": LABELS}, fan_out=nl.each())
def verdicts(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("margin", strict=False)


def test_margins_come_from_the_table_that_verdicts_were_made_of(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, verdicts(table()), build=build_id(1), system="toy")
    assert audit(store).args.margin == "margin"
    built(store, verdicts(verdicts(table(), name="bare")), build=build_id(2), system="toy")
    assert audit(store).args.margin is None
