"""Figures of a store for Prometheus: of releases, the newest tables, builds, and runs that wait for their turn.

Counters add up what the locks of builds record; they grow until normloom prune removes old ones, which Prometheus reads
as a reset. All else are gauges of what is there now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from normloom.core.table import KINDS
from normloom.history.builds import locks
from normloom.history.freshness import releases
from normloom.history.unfinished import unfinished
from normloom.store.store import Store

Waiting = Callable[[], Mapping[str, int] | None]
RUNS = 200  # that wait, at most counted of one system


class StoreCollector(Collector):
    """Reads a store each time it is asked; `waiting` returns the runs that wait, by system."""

    def __init__(self, store: Store, waiting: Waiting | None = None) -> None:
        self._store = store
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        """Yield all figures."""
        began = time.monotonic()
        yield from self._releases()
        yield from self._tables()
        yield from self._builds()
        if self._waiting and (counts := self._waiting()) is not None:
            runs = GaugeMetricFamily(
                "normloom_runs_waiting", "Runs that are due and have not begun.", labels=["system"]
            )
            for system, count in counts.items():
                runs.add_metric([system], count)
            yield runs
        seconds = time.monotonic() - began
        yield GaugeMetricFamily("normloom_scrape_seconds", "Time it took to read the store.", value=seconds)

    def _releases(self) -> Iterator[Metric]:
        now, label = datetime.now(UTC), ["system"]
        rows = GaugeMetricFamily("normloom_release_rows", "Rows of the newest release.", labels=label)
        confirmed = GaugeMetricFamily(
            "normloom_release_confirmed_timestamp_seconds", "Start of the last build that confirmed it.", labels=label
        )
        stale = GaugeMetricFamily("normloom_release_stale", "1 if release.fresh_hours have passed since.", labels=label)
        for release in releases(self._store):
            rows.add_metric([release.system], release.rows)
            confirmed.add_metric([release.system], release.confirmed.timestamp())
            stale.add_metric([release.system], release.stale(now) is not None)
        yield from (rows, confirmed, stale)

    def _tables(self) -> Iterator[Metric]:
        stage = ["system", "stage"]
        rows = GaugeMetricFamily("normloom_table_rows", "Rows of the newest table.", labels=[*stage, "kind"])
        dropped = GaugeMetricFamily("normloom_table_dropped_rows", "Dropped, by reason.", labels=[*stage, "reason"])
        aside = GaugeMetricFamily(
            "normloom_table_quarantined_rows", "In quarantine, by rule.", labels=[*stage, "reason"]
        )
        failed = GaugeMetricFamily("normloom_table_failed_checks", "Checks that it fails.", labels=stage)
        seconds = GaugeMetricFamily("normloom_table_seconds", "Seconds that it took to make.", labels=stage)
        for system in self._store.systems():
            for table in self._store.newest(system):
                labels = [system, table.stage]
                for kind in KINDS:
                    rows.add_metric([*labels, kind], table.count(kind))
                for family, counts in ((dropped, table.dropped_by), (aside, table.quarantined_by)):
                    for reason, count in counts.items():
                        family.add_metric([*labels, reason], count)
                failed.add_metric(labels, sum(not check.passed for check in table.checks))
                seconds.add_metric(labels, table.seconds)
        yield from (rows, dropped, aside, failed, seconds)

    def _builds(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily("normloom_tokens", "Read and written by models.", labels=["system", "direction"])
        requests = CounterMetricFamily("normloom_requests", "To hosted models.", labels=["system"])
        cost = CounterMetricFamily("normloom_cost", "By the prices in the settings.", labels=["system", "currency"])
        finished = CounterMetricFamily("normloom_builds_finished", "Builds that finished.", labels=["system"])
        others = GaugeMetricFamily("normloom_builds", "Builds that have not finished.", labels=["system", "state"])
        for system in self._store.systems():
            found = locks(self._store, system)
            spent = [lock.spent for lock in found if lock.spent]
            finished.add_metric([system], len(found))
            tokens.add_metric([system, "read"], sum(one.tokens_in for one in spent))
            tokens.add_metric([system, "written"], sum(one.tokens_out for one in spent))
            requests.add_metric([system], sum(one.requests for one in spent))
            for currency in sorted({one.currency for one in spent if one.currency}):
                cost.add_metric([system, currency], sum(one.cost or 0 for one in spent if one.currency == currency))
            states = [build.state for build in unfinished(self._store, system)]
            for state in ("running", "failed", "cancelled", "killed"):
                others.add_metric([system, state], states.count(state))
        yield from (tokens, requests, cost, finished, others)


def registry(store: Store, waiting: Waiting | None = None) -> CollectorRegistry:
    """Return a registry of the store's figures and nothing else."""
    found = CollectorRegistry(auto_describe=False)
    found.register(StoreCollector(store, waiting))
    return found


def runs_waiting(store: Store) -> dict[str, int] | None:
    """Return how many runs of each system are due and have not begun; None if the Prefect server in use is away."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter

    due = {
        "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
        "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
    }
    runs = FlowRunFilter.model_validate(due)
    flows = {name: FlowFilter.model_validate({"name": {"any_": [name]}}) for name in store.systems()}
    try:
        with get_client(sync_client=True) as client:
            return {
                name: len(client.read_flow_runs(flow_filter=of_system, flow_run_filter=runs, limit=RUNS))
                for name, of_system in flows.items()
            }
    except (HTTPError, OSError):
        return None
