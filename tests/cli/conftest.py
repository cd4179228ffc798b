from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command

from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys, monkeypatch)


@pytest.fixture
def toy_store(command: Command) -> Path:  # noqa: ARG001  # which gives the test its directory
    """A store with a system of two stages, where commands look for it."""
    words = words_stage("[one]", "two", "[/three]")
    loom = runner(Store(Path("store")))
    manifest, _ = loom.run(words, [], [])
    loom.run(echo_stage(words, drop="two"), [manifest.ref], [])
    return Path("store")
