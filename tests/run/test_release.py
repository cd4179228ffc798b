from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from in_process import prepared

from normloom.cli.deployed import gated
from normloom.core.errors import ReleaseError
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.history.losses import losses, sentence
from normloom.run.build import BuildRequest, reuse
from normloom.run.release import ReleaseSize
from normloom.run.runner import StageRunner
from normloom.store.store import Store
from normloom.testing.inline import made
from normloom.testing.toy import echo_stage, runner, words_stage

HALF = ReleaseSize(min_share_of_last=0.5, settable=True)


def release(store: Store, echo: Stage, size: ReleaseSize) -> Manifest:
    """Make the toy's table of words and release that of echoes."""
    loom: StageRunner = replace(runner(store), released="echo", release=size)
    words, _ = loom.run(echo.inputs[0], [], [])
    return loom.run(echo, [words.ref], [])[0]


def newest(store: Store) -> Manifest:
    found = store.current("toy", "echo")
    assert found
    return found


def test_an_empty_release_leaves_the_one_before_it_the_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = release(store, echo_stage(words_stage("a", "b")), ReleaseSize())
    empty = echo_stage(words_stage("a"), drop="a")
    with pytest.raises(ReleaseError) as refused:
        release(store, empty, ReleaseSize(settable=True))
    told = str(refused.value)
    assert "'echo' would release 0 rows, fewer than release.min_rows = 1" in told
    assert "the release before it (2 rows) stays the newest" in told
    assert "echo (read 1): 1 asked for dropped" in told
    assert "--set release.min_rows=0" in told
    assert newest(store) == first
    assert release(store, empty, ReleaseSize(min_rows=0)).count("rows") == 0


def test_the_first_release_is_held_to_it_too(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="nothing is released") as refused:
        release(Store(tmp_path), echo_stage(words_stage("a"), drop="a"), ReleaseSize())
    assert "--set" not in str(refused.value)  # a build that has no such setting
    assert Store(tmp_path).current("toy", "echo") is None


def test_a_much_smaller_release_is_refused_with_both_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = release(store, echo_stage(words_stage(*"abcdef")), HALF)
    small = echo_stage(words_stage("x", "y"))
    with pytest.raises(ReleaseError, match=r"would release 2 rows after 6, .*min_share_of_last = 0.5.*=null"):
        release(store, small, HALF)
    assert newest(store) == first
    assert release(store, echo_stage(words_stage("x", "y", "z")), HALF).count("rows") == 3  # half is enough
    release(store, small, ReleaseSize())
    release(store, small, HALF)  # the newest is no smaller than itself
    assert newest(store).count("rows") == 2


def test_what_was_made_for_a_refused_release_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    release(store, echo_stage(words_stage(*"abcdef")), HALF)
    small = echo_stage(words_stage("x", "y"))
    with pytest.raises(ReleaseError):
        release(store, small, HALF)
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob("toy/echo/*/part-*.json")}
    accepted = release(store, small, ReleaseSize())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("toy/echo/*/part-*.json")} == parts
    assert accepted.work is None  # no part was left to make


def test_a_published_table_is_not_pointed_to_again_if_it_is_too_small(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small, large = echo_stage(words_stage("x")), echo_stage(words_stage(*"abcdef"))
    release(store, small, ReleaseSize())
    first = release(store, large, ReleaseSize())
    with pytest.raises(ReleaseError, match="would release 1 row after 6"):
        reuse(small, request=BuildRequest(system="toy", release=HALF), store=store)
    with pytest.raises(ReleaseError, match="would release 1 row after 6"):
        release(store, small, HALF)
    assert newest(store) == first
    accepted = reuse(small, request=BuildRequest(system="toy"), store=store)
    assert accepted
    assert newest(store).count("rows") == 1


def test_losses_are_told_stage_by_stage_and_the_commonest_first(tmp_path: Path) -> None:
    table = release(Store(tmp_path), echo_stage(words_stage(*"abbc"), drop="b", aside="c"), ReleaseSize())
    [lost] = losses([table])
    assert (lost.rows, lost.rows_in, lost.attempts, dict(lost.dropped), dict(lost.quarantined)) == (
        3,
        4,
        4,
        {"asked for": 2},
        {"asked": 1},
    )
    assert sentence([lost]) == "echo (read 4): 2 asked for dropped; 1 asked quarantined"
    tried = replace(lost, stage="select", attempts=10)
    assert str(tried) == "select (read 4, tried 10): 2 asked for dropped; 1 asked quarantined"
    assert sentence([]) == "no stage dropped a row or quarantined one"


def test_short_prompts_without_a_label_are_accounted_for(shared_data: Path, tmp_path: Path) -> None:
    [path] = (shared_data / "cases" / "chinese_short").glob("*.jsonl")
    unlabelled = "models.classifier={engine: scripted, model: c, options: {yes_rate: 1.0e-9}}"
    settings = [f"source.path={json.dumps(str(path))}", "classify.route=exhaustive", "rounds=0", "expand.minimum=0"]
    store = Store(tmp_path)
    ends = prepared("savacu", store, unlabelled, *settings).ends
    with pytest.raises(ReleaseError, match=r"generate_0_g1 \(read 13\): 13 no_label dropped"):
        made("savacu", ends, store, released="publish", release=ReleaseSize())
    unique = store.current("savacu", "deduplicate")
    assert unique
    assert unique.count("rows") == unique.rows_in == 13  # deduplication keeps them all
    assert store.current("savacu", "publish") is None


@pytest.mark.parametrize("own", [None, 0.9])
def test_scheduled_builds_have_the_gate_unless_the_profile_has_its_own(own: float | None, tmp_path: Path) -> None:
    settings = {} if own is None else {"release": {"min_share_of_last": own}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"systems": {"savacu": settings}}))
    given = gated(["rounds=1"], profile=str(tmp_path / "mine.yaml"), system="savacu")
    gates = ["remake.max_stages=5"] if own else ["release.min_share_of_last=0.5", "remake.max_stages=5"]
    assert given == [*gates, "rounds=1"]
