"""Threads that wait for one another give up their processors soon, unless the user says how they wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from normloom.core.machine.processors import BLAS_WAITING, CYCLES, SPINS, share_processors

LOADED = """
import os, sys
from normloom.models import ModelSpec, load_model
assert "torch" not in sys.modules  # it reads the environment when it is loaded
load_model(ModelSpec(engine="scripted", model="toy"))
print(os.environ["GOMP_SPINCOUNT"])
"""
COMMAND = """
import os, sys
from normloom.cli.app import main
assert "numpy" not in sys.modules
sys.argv = ["normloom", "--version"]
try:
    main()
finally:
    print(os.environ["OPENBLAS_THREAD_TIMEOUT"])
"""


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", BLAS_WAITING])
def test_what_the_user_says_stays(name: str) -> None:
    environment = {name: "said"}
    share_processors(environment)
    assert environment[name] == "said"
    assert len(environment) == 2


def test_otherwise_they_spin_for_a_moment() -> None:
    environment: dict[str, str] = {}
    share_processors(environment)
    assert environment == {"GOMP_SPINCOUNT": SPINS, BLAS_WAITING: CYCLES}


@pytest.mark.parametrize(("script", "said"), [(LOADED, SPINS), (COMMAND, CYCLES)])
def test_it_is_so_before_a_model_is_loaded_and_when_a_command_begins(script: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines()[-1], done.returncode) == (said, 0), done.stderr
