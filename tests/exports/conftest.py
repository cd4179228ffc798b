from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import pytest
from in_process import FEW, prepared

from normloom.core.machine.once import made_once
from normloom.store.store import Store
from normloom.testing.builds import build_id, built


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Store:
    """A store with a small build of each of the four systems by scripted models."""
    own = tmp_path_factory.getbasetemp()
    built_once = made_once((own if worker_id == "master" else own.parent) / "four", _build)
    return Store(Path(shutil.copytree(built_once, own / "exports", symlinks=True)))


def _build(root: Path) -> None:
    store = Store(root)
    for number, (system, settings) in enumerate(FEW.items(), start=1):
        ends = prepared(system, store, *settings).ends
        built(store, *ends, build=build_id(number), system=system, profile="local", settings=settings)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` asks no server and keeps what it prepares apart."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.utils.logging, "is_progress_bar_enabled", lambda: False)
