"""Benchmarks are scripts that nothing else imports: each must still find what it uses."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
OWN = ("normloom_stage.py", "orchestrated/on_normloom.py")  # the peers have environments of their own
SCRIPTS = [*sorted(FOLDER.glob("*.py")), *(FOLDER / "peers" / name for name in OWN)]


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """Forget the modules of the benchmarks that the test imports."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(FOLDER)):
            del sys.modules[name]


def test_the_five_steps_of_the_orchestrators_take_few_lines() -> None:
    flow = (FOLDER / "peers" / "orchestrated" / "on_normloom.py").read_text(encoding="utf-8")
    assert len(flow.splitlines()) <= 60


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.stem))
def test_every_benchmark_can_be_imported(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER / "peers")  # as the benchmark that starts them has it
    monkeypatch.syspath_prepend(script.parent)
    assert runpy.run_path(str(script), run_name="benchmark")["__doc__"]
