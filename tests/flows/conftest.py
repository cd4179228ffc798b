from __future__ import annotations

import pytest
from tiny_models import save_tiny_llama

from normloom.store.store import Store


@pytest.fixture(scope="class")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store for the builds that the tests of a class look at."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names a model of random weights as the policy."""
    directory = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return f"models.policy={{engine: transformers, model: {directory}, device: cpu, threads: 1}}"
