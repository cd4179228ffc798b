"""Benchmarks are scripts that nothing else imports: each must still find what it uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
LOAD = """
import os, runpy, sys
for name in sys.argv[1:]:
    sys.path.insert(0, os.path.dirname(name))
    runpy.run_path(name, run_name="benchmark")
    print(name)
"""


def test_the_five_steps_of_the_orchestrators_take_few_lines() -> None:
    flow = (FOLDER / "peers" / "orchestrated" / "on_normloom.py").read_text(encoding="utf-8")
    assert len(flow.splitlines()) <= 60


def test_every_benchmark_can_be_imported() -> None:
    own = (FOLDER / "peers" / "normloom_stage.py", FOLDER / "peers" / "orchestrated" / "on_normloom.py")
    scripts = [str(path) for path in (*sorted(FOLDER.glob("*.py")), *own)]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *scripts], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == scripts
