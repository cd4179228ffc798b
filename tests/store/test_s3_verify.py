"""Damage to objects is found, named and made good; parts that are made again leave nothing."""

from __future__ import annotations

from s3_server import S3Server

from normloom.history.links import broken_links
from normloom.history.removal.gc import idle
from normloom.run.reproduce import sample
from normloom.steps.graph import stages_of
from normloom.store.layout import part_marker
from normloom.store.store import Store
from normloom.store.verify import repair, verify
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage

FLOW = echo_stage(words_stage(*"abcdef"), drop="b")


def test_damaged_objects_are_named_and_only_their_parts_are_made_again(place: str) -> None:
    store = Store(place)
    before = built(store, FLOW, build=build_id(1))
    echo = store.current("toy", "echo")
    assert echo
    directory = store.table_directory(echo.ref)
    flipped = directory / echo.parts[1].files["rows"].name
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"x")
    (directory / echo.parts[0].files["dropped"].name).unlink()
    found = list(verify(store))
    assert [(one.part, one.problem) for one in found] == [(0, "is missing"), (1, "is damaged: its checksum differs")]
    with idle(store, "toy") as hold:
        repair(store, found, hold)
    assert not part_marker(directory, 0).exists()
    again = Store(place)
    assert built(again, FLOW, build=build_id(2)).stages["echo"].content == before.stages["echo"].content
    assert [*verify(again), *broken_links(again)] == []
    remade = again.current("toy", "echo")
    assert remade
    assert remade.work
    assert remade.work.parts == 2
    assert remade.parts[2] == echo.parts[2]


def test_parts_that_are_made_again_come_out_the_same_and_leave_nothing(server: S3Server, place: str) -> None:
    store = Store(place)
    lock = built(store, FLOW, build=build_id(1))
    names = server.names()
    found = sample(stages_of(FLOW), lock, store=store, runner=runner(store), count=9)
    assert [(one.stage, one.found) for one in found.remade] == [("words", "bit-equal"), *[("echo", "bit-equal")] * 3]
    assert server.names() == names
