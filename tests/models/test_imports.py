from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("attempt", range(2))
def test_an_engine_is_used_while_another_thread_imports(attempt: int) -> None:  # noqa: ARG001  # a fresh process each
    script = Path(__file__).parents[1].joinpath("import_race.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
