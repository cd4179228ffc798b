"""An adapter that is trained already, and one whose loss is not finite."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from normloom.core.errors import StageError
from normloom.tasks.cross_align.training.adapter import Adapting, _epoch, _fitted, file_name
from normloom.tasks.cross_align.training.head import AdaptedHead


def test_an_adapter_that_is_trained_is_not_trained_again(tmp_path: Path) -> None:
    curve = [{"task": "tone", "variant": "plain", "epoch": 0, "loss": 0.5}]
    weights = tmp_path / file_name("tone", "plain")
    weights.touch()
    weights.with_suffix(".json").write_text(json.dumps(curve))
    nothing = pl.DataFrame()
    assert _fitted(nothing, nothing, nothing, Adapting(), "tone", "plain", tmp_path) == curve


def test_a_loss_that_is_not_finite_says_what_to_lower() -> None:
    head = AdaptedHead(torch.zeros(2, 3), torch.zeros(2), rank=1, scale=1.0)
    unit, labels, triples = torch.full((3, 3), torch.nan), torch.tensor([0, 0, 1]), torch.tensor([[0, 1, 2]])
    with pytest.raises(StageError, match=r"the loss is nan: lower adapter\.learning_rate"):
        _epoch(head, unit, labels, triples, torch.ones(2), Adapting(), None)
