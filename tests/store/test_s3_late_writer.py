"""A builder that sleeps past its lease, or whose request arrives late: what another has published stays as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import polars as pl
import pytest
from s3_server import S3Server

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import DROPPED_SCHEMA, QUARANTINE_SCHEMA, PartRecord
from normloom.history.removal.gc import collect, idle, remove
from normloom.store.layout import part_marker
from normloom.store.locks import lease
from normloom.store.parts import Writer, committed_part, forget_parts, write_frames, write_part
from normloom.store.store import Store
from normloom.store.verify import verify
from normloom.testing.toy import echo_stage, runner, words_stage

BUILD = """
import sys
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage
store, words = Store(sys.argv[1]), words_stage(*"abcdef")
source, _ = runner(store).run(words, [], [])
runner(store).run(echo_stage(words, drop="b"), [source.ref], [])
"""


def tables(server: S3Server, place: str) -> dict[str, bytes]:
    """Return all objects of tables; locks are written by whoever comes."""
    prefix = f"{place.removeprefix(f's3://{server.bucket}/')}/toy/echo/"
    return {name: server.read(name) for name in server.names() if name.startswith(prefix) and "/lock" not in name}


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        pytest.param("part-00001.json", False, id="the mark of a part on its way"),
        pytest.param("manifest.json", False, id="the manifest on its way"),
        pytest.param("manifest.json", True, id="the manifest about to be sent"),
    ],
)
def test_a_builder_that_wakes_late_changes_nothing_that_was_published(
    server: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, name: str, *, lost: bool
) -> None:
    monkeypatch.setenv(lease.SECONDS, "1")
    store, words = Store(place), words_stage(*"abcdef")
    source, _ = runner(store).run(words, [], [])
    with (
        server.holding("PUT", f"*/toy/echo/*/{name}") as request,
        subprocess.Popen([sys.executable, "-c", BUILD, place], stderr=subprocess.PIPE, text=True) as sleeper,
    ):
        assert request.seen.wait(60)
        os.kill(sleeper.pid, signal.SIGSTOP)
        manifest, reused = runner(store).run(echo_stage(words, drop="b"), [source.ref], [])
        assert not reused
        published = tables(server, place)
        request.end(lost=lost)
        os.kill(sleeper.pid, signal.SIGCONT)
        _, said = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 1
    assert "StoreError" in said
    left = tables(server, place)
    assert {key: left.get(key) for key in published} == published
    assert list(verify(Store(place))) == []
    assert Store(place).scan(manifest.ref).collect()["word"].to_list() == list("acdef")
    remove(store, collect(store, "toy"))  # what came late has names of its own, and is garbage
    assert tables(server, place) == published


def frames() -> dict[Any, pl.DataFrame]:
    rows = pl.DataFrame({"row_id": ["1"], "word": ["a"]})
    return {
        "rows": rows,
        "dropped": pl.DataFrame(schema=DROPPED_SCHEMA),
        "quarantined": pl.DataFrame(schema=QUARANTINE_SCHEMA),
    }


def part(directory: ObjectPath, writer: str, *, stop: int = 1) -> PartRecord:
    return PartRecord(
        index=0,
        start=0,
        stop=stop,
        files=write_frames(directory, 0, frames(), writer=writer),
        attempts=1,
        dropped_by={},
        quarantined_by={},
        tokens_in=0,
        tokens_out=0,
        seconds=0.0,
        metrics={},
    )


def test_marks_of_parts_are_changed_by_the_holder_alone(place: str) -> None:
    store = Store(place)
    directory = store.directory("toy", "words", "k")
    assert isinstance(directory, ObjectPath)
    early, holder = Writer.of("early"), Writer.of("holder")
    with store.lock(directory, early, waiting=lambda _: None):
        first = write_part(directory, part(directory, early.token), writer=early.token)
        assert write_part(directory, part(directory, early.token), writer=early.token) == first
    with store.lock(directory, holder, waiting=lambda _: None):
        late = part(directory, early.token, stop=2)  # cut otherwise
        with pytest.raises(StoreError, match="is being written by build holder"):
            write_part(directory, late, writer=early.token)
        with pytest.raises(StoreError, match="is being written by build holder"):
            forget_parts(directory, [first], writer=early.token)
        assert committed_part(directory, 0) == first
        own = write_part(directory, part(directory, holder.token, stop=2), writer=holder.token)
        assert committed_part(directory, 0) == own
        with pytest.raises(StoreError, match=r"another build has written .*part-00000"):
            write_part(directory, first.model_copy(update={"stop": 2}), writer=holder.token, instead=first)
        forget_parts(directory, [own], writer=holder.token)
        assert store.parts(directory) == {}
        assert part_marker(directory, 0).read_bytes() == b""
        again = write_part(directory, part(directory, f"{holder.token}-1"), writer=holder.token)
        assert committed_part(directory, 0) == again


def test_gc_that_slept_stops_before_it_removes_anything(place: str) -> None:
    store = Store(place)
    runner(store).run(words_stage("a"), [], [])
    with idle(store, "toy") as hold:
        hold.require()
        running = store.root / "toy" / "builds" / "running"
        assert isinstance(running, ObjectPath)
        running.put(b'{"holder": "gc of another", "fence": 2}')  # as another that took the lease over
        with pytest.raises(StoreError, match="another has taken it over"):
            hold.require()


def test_a_part_that_another_commits_meanwhile_counts_or_stops_who_takes_it_back(server: S3Server, place: str) -> None:
    store = Store(place)
    directory = store.directory("toy", "words", "k")
    assert isinstance(directory, ObjectPath)
    writer = Writer.of("b")
    with store.lock(directory, writer, waiting=lambda _: None):
        first = write_part(directory, part(directory, writer.token), writer=writer.token)
        assert write_part(directory, part(directory, f"{writer.token}-1"), writer=writer.token) == first
        marker, refused = part_marker(directory, 0), list[str]()

        def take_back() -> None:
            try:
                forget_parts(directory, [first], writer=writer.token)
            except StoreError as error:
                refused.append(str(error))

        with server.holding("GET", "*/words/k/lock") as request:  # after the look at the mark
            thread = threading.Thread(target=take_back)
            thread.start()
            assert request.seen.wait(60)
            marker.write_bytes(b"{}")
            request.end(lost=False)
            thread.join()
    assert refused == [f"another build has written {marker}: this build stops"]
    assert marker.read_bytes() == b"{}"
