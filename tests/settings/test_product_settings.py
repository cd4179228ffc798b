from __future__ import annotations

from pathlib import Path

import pytest
from adapters import Seed, adapt, write_whole
from tiny_models import save_tiny_llama

from normloom.core.errors import ConfigError
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.settings.product_models import out_of_products
from normloom.steps.graph import with_models
from normloom.store.store import Store
from normloom.testing import echo_stage, made, words_stage


def test_settings_name_a_product_of_another_system(tmp_path: Path) -> None:
    store, words = Store(tmp_path / "store"), words_stage("yes", "no")
    base = ModelSpec(model=str(save_tiny_llama(tmp_path / "base")))
    tables = made("tuning", [adapt(words, Seed(), policy=base), write_whole(words, Seed())], store)
    for name, adapter in (("adapt", True), ("write_whole", False)):
        change = out_of_products(store, reader="toy")
        [stage] = with_models([echo_stage(words, model=ModelSpec(model=f"product:tuning/{name}"))], change)
        assert isinstance(stage.model, ProductSpec)
        assert stage.model.adapter is adapter
        assert made("toy", [stage], store)["echo"].sides == [tables[name].ref]


def test_a_product_that_is_none_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made("toy", [words_stage("a")], store)
    change = out_of_products(store, reader="other")
    for name in ("product:toy/tuned", "product:nobody/tuned", "product:toy"):
        with pytest.raises(ConfigError, match=r"has no product .*; build .* first"):
            change(ModelSpec(model=name))
    with pytest.raises(ConfigError, match="has rows only, no model files"):
        change(ModelSpec(model="product:toy/words"))
