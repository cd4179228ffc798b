"""Threads that wait for one another give up their processors soon, unless the user says how they wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from normloom.core.machine.processors import SPINS, share_processors

LOADED = """
import os, sys
from normloom.models import ModelSpec, load_model
assert "torch" not in sys.modules  # it reads the environment when it is loaded
load_model(ModelSpec(engine="scripted", model="toy"))
print(os.environ["GOMP_SPINCOUNT"])
"""


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_says_stays(name: str) -> None:
    environment = {name: "said"}
    share_processors(environment)
    assert environment == {name: "said"}


def test_otherwise_they_spin_for_a_moment() -> None:
    environment: dict[str, str] = {}
    share_processors(environment)
    assert environment == {"GOMP_SPINCOUNT": SPINS}


def test_it_is_so_before_a_model_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == (f"{SPINS}\n", 0), done.stderr
