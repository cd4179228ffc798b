from __future__ import annotations

import pytest
from tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names a model of random weights as the policy."""
    directory = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return f"models.policy={{engine: transformers, model: {directory}, device: cpu, threads: 1}}"
