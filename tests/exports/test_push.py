"""Exports pushed to a small server of the hub's protocol, by the command as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_uploads import Hub, hub_for_uploads

import normloom as nl
from normloom.core.errors import UsageError
from normloom.exports.export import export
from normloom.exports.folder import SUMS
from normloom.exports.push import push, require_token
from normloom.history.exports import exports
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

TOKEN = "hf_verysecret"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_for_uploads(TOKEN) as served:
        yield served


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    return store


def pushed(
    store: Store, hub: Hub, folder: Path, *options: str, token: str = TOKEN, lfs: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the command; large files go by LFS, as the hub's newer protocol needs a server of its own."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": str(int(lfs)),
        "HF_HOME": str(folder.parent / "hf"),
    }
    command = [sys.executable, "-m", "normloom", "export", "toy", str(folder), "--push", "me/toy", *options]
    return subprocess.run(
        [*command, "--store", str(store.root)],
        env={**os.environ, **settings, "PREFECT_LOGGING_LEVEL": "DEBUG", "HF_DEBUG": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_release_is_pushed_and_the_next_takes_its_place(store: Store, hub: Hub, tmp_path: Path) -> None:
    first = pushed(store, hub, tmp_path / "out")
    assert first.returncode == 0, first.stderr
    assert hub.files["me/toy"] == contents(tmp_path / "out")
    assert hub.private == {"me/toy": True}
    assert list(hub.tags["me/toy"]) == ["v1.0.0"]
    assert f"{hub.url}/datasets/me/toy/commit/{hub.commit('me/toy')}" in first.stdout
    assert b'load_dataset("me/toy")' in hub.files["me/toy"]["README.md"]

    hub.files["me/toy"][".gitattributes"] = b"*.parquet filter=lfs"  # of the hub itself
    built(store, words_stage(*"abc"), build=build_id(2))
    second = pushed(store, hub, tmp_path / "out", "--overwrite", "--format", "jsonl")
    assert second.returncode == 0, second.stderr
    expected = contents(tmp_path / "out")
    assert "data/default/train.jsonl" in expected
    assert hub.files["me/toy"] == {**expected, ".gitattributes": b"*.parquet filter=lfs"}
    assert hub.commits["me/toy"] == ["Release 1.0.0", "Release 2.0.0"]
    assert hub.tags["me/toy"]["v2.0.0"] == hub.commit("me/toy")
    assert [(one.version, one.pushed) for one in exports(store, "toy")] == [("1.0.0", "me/toy"), ("2.0.0", "me/toy")]

    said = first.stdout + first.stderr + second.stdout + second.stderr
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in said
    assert TOKEN.encode() not in written


def test_a_release_is_pushed_from_python(
    store: Store, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    nl.export("toy", tmp_path / "out", store=store, format="jsonl", push="me/toy", private=False)
    assert hub.files["me/toy"] == contents(tmp_path / "out")
    assert hub.private == {"me/toy": False}


@pytest.mark.parametrize(("token", "full"), [("hf_wrong", False), (TOKEN, True)])
def test_a_refused_push_leaves_the_export_and_says_what_to_do(
    store: Store, hub: Hub, tmp_path: Path, token: str, full: bool
) -> None:
    hub.full = full
    failed = pushed(store, hub, tmp_path / "out", token=token)
    assert failed.returncode == 1
    said = " ".join(failed.stderr.split())
    assert "is written, but me/toy rejected it: " in said
    assert "check the name and the token in HF_TOKEN, and rerun the command with --overwrite" in said
    assert token not in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr
    assert (tmp_path / "out" / SUMS).is_file()
    assert hub.files == ({"me/toy": {}} if full else {})


def test_a_hub_without_xet_storage_is_told_how_to_push_to(store: Store, hub: Hub, tmp_path: Path) -> None:
    failed = pushed(store, hub, tmp_path / "out", lfs=False)  # huggingface_hub then asks for Xet, and for nothing else
    assert failed.returncode == 1
    assert "if the hub has no Xet storage, set HF_HUB_DISABLE_XET=1, and rerun the command" in failed.stderr
    assert hub.files == {"me/toy": {}}
    assert TOKEN not in failed.stdout + failed.stderr


@pytest.mark.parametrize("token", [None, " "])
def test_a_push_without_a_token_starts_nothing(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match="--push needs a token with write access in HF_TOKEN"):
        require_token()


def test_a_name_of_three_parts_is_no_repository(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    made = export(store, "toy", tmp_path / "out")
    with pytest.raises(UsageError, match="--push 'me/my/toy' is not the name of a repository such as me/savacu: "):
        push(store, made, "me/my/toy", private=True)
