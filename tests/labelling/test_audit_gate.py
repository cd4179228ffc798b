"""A build whose release must reach a bound of its audit: made, but released only once people's answers allow it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from audited_table import VIEW, answer, figures, queue_of, table
from prefect_home import Prefect

from normloom.core.errors import ConfigError, ReleaseError
from normloom.run.build import BuildRequest, BuildResult, build, reuse
from normloom.settings.faces.audit_gate import AuditGate, Unaudited
from normloom.settings.faces.audits import Audit, audit_of
from normloom.settings.settings import stages_for
from normloom.store.latest import released_key
from normloom.store.store import Store
from normloom.tasks.audit.bounds import Bound
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def request(least: float, unaudited: Unaudited = "fail") -> BuildRequest:
    bound = Bound(metric="precision", of="misaligned", least=least)
    return BuildRequest(system="toy", target=None, gate=AuditGate(bounds=[bound], unaudited=unaudited))


def made(store: Store, asked: BuildRequest, changed: str = "") -> BuildResult:
    return build(table(changed), request=asked, store=store, pool=Pool(Resources(actors=0)))


def audit_made(store: Store) -> Audit:
    """Audit the table that was made, released or not, and answer."""
    found = audit_of(store, "toy", VIEW, budget=60, stage="responses")
    answer(queue_of(found, store))
    figures(found, store)
    return found


def test_a_release_is_held_until_its_audit_reaches_the_bound(shared_prefect: Prefect, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with shared_prefect.used(), pytest.raises(ReleaseError, match=r"precision of misaligned at least 0\.3") as held:
        made(store, request(0.3))
    told = str(held.value)
    assert f"has not been audited: run normloom audit toy --table responses --store {tmp_path}" in told
    assert released_key(store, "toy") is None
    audit_made(store)
    passed = reuse(table(), request=request(0.3), store=store)
    assert passed
    assert released_key(store, "toy") == (passed.released.stage, passed.released.key)
    with pytest.raises(
        ReleaseError, match=r"misses 1 bounds of release.at_least: precision of misaligned at least 0\.9"
    ):
        reuse(table(), request=request(0.99), store=store)


def test_a_new_table_is_not_covered_by_the_audit_of_the_last(
    shared_prefect: Prefect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    with shared_prefect.used(), caplog.at_level(logging.WARNING, logger="normloom"):
        first = made(store, request(0.3, "warn"))
        assert "has not been audited: run normloom audit toy" in caplog.text
        audit_made(store)
        with pytest.raises(ReleaseError, match="has not been audited"):
            made(store, request(0.3), changed="!")
    assert released_key(store, "toy") == ("responses", first.released.key)  # the one before stays


def test_a_bound_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected FIGURE VERDICT NUMBER"):
        stages_for("savacu", profile="local", assignments=["release.at_least=[precise]"], store=Store(tmp_path))
    bound = 'release.at_least=["precision misaligned 0.9"]'
    prepared = stages_for("savacu", profile="local", assignments=[bound], store=Store(tmp_path))
    gate = prepared.config.release.gate
    assert gate
    assert [str(one) for one in gate.bounds] == ["precision of misaligned at least 0.9, lower bound"]
