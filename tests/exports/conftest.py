from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from in_process import FEW, prepared

from normloom.store.store import Store
from normloom.testing.builds import build_id, built


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a small build of each of the four systems by scripted models."""
    store = Store(tmp_path_factory.mktemp("four") / "store")
    for number, (system, settings) in enumerate(FEW.items(), start=1):
        ends = prepared(system, store, *settings).ends
        built(store, *ends, build=build_id(number), system=system, profile="local", settings=settings)
    return store


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` asks no server and keeps what it prepares apart."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.utils.logging, "is_progress_bar_enabled", lambda: False)
