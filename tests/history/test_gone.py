"""Tables that are gone, folders that cannot be cleaned, and users without a name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from normloom.core.errors import StoreError, UsageError
from normloom.history.losses import upstream
from normloom.history.removal.forget import _user
from normloom.history.removal.gc import _cleaning
from normloom.labelling.queue import person
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


def test_what_a_table_that_is_gone_was_made_of_is_left_out(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a")
    first, _ = runner(store).run(words, [], [])
    second, _ = runner(store).run(echo_stage(words), [first.ref], [])
    shutil.rmtree(store.table_directory(first.ref))
    assert [one.stage for one in upstream([second.ref], Store(tmp_path))] == ["echo"]


def test_a_folder_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "inside").touch()
    told = rf"cannot clean up {tmp_path}: Directory not empty; fix that and rerun gc"
    with pytest.raises(StoreError, match=told), _cleaning(tmp_path):
        tmp_path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "NORMLOOM_WHO"):
        monkeypatch.delenv(name, raising=False)
    os.setresuid(54321, -1, -1)
    try:
        assert _user() == "unknown"
        with pytest.raises(UsageError, match="no name to answer under: give --who NAME, or set NORMLOOM_WHO"):
            person()
    finally:
        os.setresuid(0, -1, -1)
