from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import loaded, save_tiny_llama

from normloom.models.transformers.engine import TransformersModel


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(directory: Path) -> TransformersModel:
    return loaded(directory)
