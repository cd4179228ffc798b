from __future__ import annotations

from pathlib import Path

from normloom.core.stage import Stage
from normloom.store.stale import stale_stages
from normloom.store.store import Store
from normloom.testing.toy import Echo, echo, echo_stage, runner, words_stage


def test_what_stands_on_a_table_made_anew_is_stale_and_so_is_what_stands_on_that(tmp_path: Path) -> None:
    store = Store(tmp_path)
    loom = runner(store)
    words = words_stage("a", "b")
    middle = echo_stage(words)
    last = Stage(
        name="last", function=echo, arguments=Echo(), contract=middle.contract, inputs=(middle,), model=middle.model
    )
    table, _ = loom.run(words, [], [])
    echoed, _ = loom.run(middle, [table.ref], [])
    loom.run(last, [echoed.ref], [])
    assert stale_stages(store, "toy") == {}

    longer, _ = loom.run(words_stage("a", "b", "c"), [], [])
    assert stale_stages(store, "toy") == {"echo": "words has been rebuilt", "last": "echo is stale"}

    renewed, _ = loom.run(middle, [longer.ref], [])
    assert stale_stages(store, "toy") == {"last": "echo has been rebuilt"}
    loom.run(last, [renewed.ref], [])
    assert stale_stages(store, "toy") == {}


def test_an_input_made_again_with_the_same_content_leaves_nothing_stale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    loom = runner(store)
    words = words_stage("a", "b")
    table, _ = loom.run(words, [], [])
    loom.run(echo_stage(words), [table.ref], [])
    loom.run(words, [], [], again="all")
    assert stale_stages(store, "toy") == {}
