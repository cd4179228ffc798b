"""Removals from object storage while builds may come: one that is late, or meets what was written since, is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import boto3
import pytest
from s3_server import Held, S3Server

from normloom.core.errors import StoreError, UsageError
from normloom.core.machine.object_path import ObjectPath, place_of
from normloom.history.removal.gc import collect, idle, remove
from normloom.store.layout import LOCK
from normloom.store.locks import lease
from normloom.store.locks.hold import _send
from normloom.store.store import Store
from normloom.store.verify import verify
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage

OLD, NEW = echo_stage(words_stage(*"ab")), echo_stage(words_stage(*"abc"))
GC = """
import sys
from normloom.history.removal.gc import collect, remove
from normloom.store.store import Store
store = Store(sys.argv[1])
remove(store, collect(store, "toy", keep=1))
"""


@pytest.mark.parametrize("name", ["manifest.json", "part-00000.json"])
def test_a_removal_that_comes_late_leaves_what_a_build_took_up_meanwhile(
    server: S3Server, place: str, name: str
) -> None:
    store = Store(place)
    before = built(store, OLD, build=build_id(1))
    built(store, NEW, build=build_id(2))
    with (
        server.holding("DELETE", f"*/toy/echo/{before.stages['echo'].key}/{name}") as request,
        subprocess.Popen([sys.executable, "-c", GC, place], stderr=subprocess.PIPE, text=True) as sleeper,
    ):
        assert request.seen.wait(60)
        os.kill(sleeper.pid, signal.SIGSTOP)
        with store.building("toy"):  # waits until the lease of the one that sleeps has run out
            again = built(store, OLD, build=build_id(3))
        request.end(lost=False)
        os.kill(sleeper.pid, signal.SIGCONT)
        _, said = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 1
    assert "another has taken it over" in said
    assert {name: stage.content for name, stage in again.stages.items()} == {
        name: stage.content for name, stage in before.stages.items()
    }
    assert list(verify(store)) == []
    assert Store(place).scan(store.newest("toy")[-1].ref).collect()["word"].to_list() == list("ab")


def test_what_was_written_since_the_look_is_not_removed(server: S3Server, place: str) -> None:
    store = Store(place)
    store.root.joinpath("toy", "x").write_bytes(b"1")
    path = place_of(place) / "toy" / "x"
    refused: list[str] = []

    def removing() -> None:
        with idle(store, "toy") as hold:
            try:
                hold.remove(path)
            except StoreError as error:
                refused.append(str(error))

    if not deletes_by_tag(server):
        pytest.skip("this server ignores If-Match when it deletes")
    with server.holding("DELETE", "*/toy/x") as request:
        thread = threading.Thread(target=removing)
        thread.start()
        assert request.seen.wait(60)
        path.write_bytes(b"2")
        request.end(lost=False)
        thread.join()
    assert refused == [f"another process has written {path}: it and what follows is not removed"]
    assert path.read_bytes() == b"2"


def deletes_by_tag(server: S3Server) -> bool:
    server.client.put_object(Bucket=server.bucket, Key="probe", Body=b"1")
    try:
        server.client.delete_object(Bucket=server.bucket, Key="probe", IfMatch='"0"')
    except boto3.exceptions.botocore.exceptions.ClientError:
        return True
    return False


def test_a_lost_request_is_sent_again(server: S3Server, place: str) -> None:
    store = Store(place)
    path = store.root / "toy" / "x"
    path.write_bytes(b"1")
    killed = store.root / "toy" / "builds" / ".running-0000"  # what a build leaves that is killed
    killed.write_bytes(b"")
    with idle(store, "toy") as hold, server.holding("DELETE", "*/toy/x") as request:
        assert not killed.exists()

        def lose() -> None:
            if request.seen.wait(60):
                request.end(lost=True)

        threading.Thread(target=lose).start()
        hold.remove(path)
        assert not path.exists()
        hold.remove(path)  # is gone already


@pytest.mark.parametrize("seconds", [1.1, 1.6])
def test_a_renewal_that_hangs_or_whose_answer_is_lost_loses_no_lease(
    server: S3Server, place: str, seconds: float
) -> None:
    path = place_of(place) / "lock"
    assert isinstance(path, ObjectPath)
    holder = lease.take(path, "holder")
    assert holder
    with server.holding("PUT", f"{path.parent.name}/lock") as request:
        assert request.seen.wait(60)
        time.sleep(seconds)  # its client has given up after one, and sends another a quarter of a second later
        request.end(lost=False)
        holder.require()
    assert (lease.holder_of(path), holder.lost) == ("holder", False)
    holder.give_back()


def test_clocks_too_far_apart_for_the_lease_are_told(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.SECONDS, "1")
    store = Store(place)
    path = store.root / "toy" / "x"
    path.write_bytes(b"1")
    with idle(store, "toy") as hold:
        hold.leases[0].__dict__["ahead"] = 30.0  # as measured on a machine whose clock is fast
        with pytest.raises(StoreError, match=r"30 s apart.*NORMLOOM_LEASE_SECONDS to more"):
            hold.remove(path)
    assert path.exists()


def test_two_builders_and_a_gc_at_once(place: str) -> None:
    flows = [words_stage(*words) for words in ("ab", "abc", "abd")]
    contents: set[tuple[int, str]] = set()
    errors: list[Exception] = []
    removed, refused = 0, set[str]()

    def build(first: int) -> None:
        store = Store(place)
        try:
            for number in (first, 2, 1 - first):
                with store.building("toy"):
                    source, _ = runner(store).run(flows[number], [], [])
                    made, _ = runner(store).run(echo_stage(flows[number]), [source.ref], [])
                    assert store.scan(made.ref).collect().height == 2 + (number > 0)
                contents.add((number, made.content))
        except Exception as error:  # noqa: BLE001  # whatever it is, the test tells it
            errors.append(error)

    builders = [threading.Thread(target=build, args=(first,)) for first in range(2)]
    for thread in builders:
        thread.start()
    store = Store(place)
    while alive := [thread for thread in builders if thread.is_alive()]:
        alive[0].join(0.1)  # builders ask the same server
        try:
            removed += len(remove(store, collect(store, "toy", partial=timedelta(0))))
        except UsageError:  # nothing is there yet
            continue
        except StoreError as error:
            refused.add(str(error))
    removed += len(remove(store, collect(store, "toy", partial=timedelta(0))))
    assert errors == []
    assert removed
    assert refused <= {f"a build of toy is running in {store.root}: run this again once it has finished"}
    assert len(contents) == len(flows)
    assert list(verify(store)) == []
    assert len(store.newest("toy")) == 2


def test_an_endpoint_that_does_not_answer_is_told_without_its_address() -> None:
    status, said = _send("http://127.0.0.1:9/bucket/key?X-Amz-Credential=id", '"tag"')
    assert status == 0
    assert "refused" in said
    assert "X-Amz" not in said


def test_a_storage_that_compares_tags_without_quotes_removes_too(server: S3Server, place: str) -> None:
    store = Store(place)
    path = store.root / "toy" / "x"
    path.write_bytes(b"1")
    with idle(store, "toy") as hold, server.holding("DELETE", "*/toy/x") as request:
        answer_first(request, "412 Precondition Failed")
        hold.remove(path)
        assert not path.exists()


def test_a_removal_that_the_storage_refuses_says_what_it_said(server: S3Server, place: str) -> None:
    store = Store(place)
    path = store.root / "toy" / "x"
    path.write_bytes(b"1")
    with idle(store, "toy") as hold, server.holding("DELETE", "*/toy/x") as request:
        answer_first(request, "405 Method Not Allowed")
        with pytest.raises(StoreError, match=r"toy/x cannot be removed: the object storage says 405 .*rerun this"):
            hold.remove(path)
    assert path.exists()


def answer_first(request: Held, status: str) -> None:
    """Answer the first of the requests with a status of the storage's own."""

    def answer() -> None:
        if request.seen.wait(60):
            request.end(lost=True, status=status)

    threading.Thread(target=answer).start()


def test_a_table_whose_removal_was_broken_off_is_removed(place: str) -> None:
    store = Store(place)
    built(store, OLD, build=build_id(1))
    built(store, NEW, build=build_id(2))
    found = collect(store, "toy", keep=1)
    for item in found.garbage:
        (item.path / LOCK).unlink(missing_ok=True)
    assert remove(store, found)
    assert not collect(store, "toy", keep=1).garbage
