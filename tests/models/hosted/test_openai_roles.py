"""A hosted model next to others, each in a role."""

from __future__ import annotations

import pytest
from openai_toys import VARIABLE, spec_of, writing
from scripted_server import KEY, serving

from normloom.core.models.model_roles import RolesSpec
from normloom.models import ModelSpec
from normloom.models.openai.engine import OpenaiModel
from normloom.models.roles import Roles


def test_models_by_role_are_let_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    scripted = ModelSpec(engine="scripted", model="m")
    with serving() as server:
        roles = Roles(RolesSpec.of({"hosted": spec_of(server.base_url), "own": scripted}))
        assert list(roles) == ["hosted", "own"]
        hosted = roles["hosted"]
        assert isinstance(hosted, OpenaiModel)
        assert hosted.generate([writing("prompt")])[0].candidates
        roles.close()
        assert not hosted._thread.is_alive()
