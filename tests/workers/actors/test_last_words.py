"""What actors log before they end, for a server that takes its time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from log_recorder import recording
from prefect import flow, task
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_home import Prefect

from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage
from normloom.workers.actors.actor import LAST_WORDS_SECONDS
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def echo_two_words(place: Path, run: TaskRunContext, api: str) -> None:
    TaskRunContext.__var__.set(run)
    with temporary_settings({PREFECT_API_URL: api}), closing(Pool(Resources(actors=1, threads=1))) as pool:
        loom, source = replace(runner(Store(place)), pool=pool), words_stage("a", "b")
        words, _ = loom.run(source, [], [])
        loom.run(echo_stage(source), [words.ref], [])


def test_an_actor_is_not_closed_before_a_slow_server_has_what_it_logged(
    tmp_path: Path, shared_prefect: Prefect
) -> None:
    @task
    def stage(api: str) -> None:
        run = TaskRunContext.get()
        assert run
        with ThreadPoolExecutor(1) as thread:  # one that has no client of another server yet
            thread.submit(echo_two_words, tmp_path, run, api).result()

    @flow
    def weave(api: str) -> None:
        stage(api)

    with recording(seconds=2 * LAST_WORDS_SECONDS) as slow, shared_prefect.used():
        weave(slow.url)
        assert any("loaded model toy" in message for message in slow.messages)
