from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from normloom.models.transformers.engine import TransformersModel


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import save_tiny_llama  # here: the process that only starts others would import torch

    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(directory: Path) -> TransformersModel:
    from tiny_models import loaded

    return loaded(directory)
