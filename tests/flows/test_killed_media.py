"""A process is killed while it encodes and again while it trains; what it had done is not done again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.testing.inline import made

SETTINGS = (
    "source.limit=64",
    "encode.part_rows=4",
    "items.folds=2",
    "align={width: 8, epochs: 2}",
    "refine={width: 8, epochs: 2}",
)
BUILD = "import sys, test_killed_media; test_killed_media.build(sys.argv[1])"
ENOUGH = 240.0  # seconds


def build(root: str) -> None:
    store = Store(Path(root))
    made("conllm", stages_for("conllm", profile="local", assignments=list(SETTINGS), store=store).ends, store)


def killed(root: Path, when: Callable[[], bool]) -> None:
    """Build in a process of its own until it is time to kill it."""
    told = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", BUILD, str(root)], env=told, start_new_session=True) as process:
        deadline = time.monotonic() + ENOUGH
        while not when():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)


def test_a_killed_encode_and_a_killed_training_resume(tmp_path: Path) -> None:
    root = tmp_path / "store"

    def parts() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in root.glob("conllm/speaker_vectors/*/part-*.json")}

    def trained() -> dict[str, str]:
        """The finished networks: those whose curve is written."""
        done = [path.with_suffix(".safetensors") for path in root.glob("conllm/refiners/*/scratch/*.json")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in done}

    killed(root, lambda: len(parts()) >= 3)
    encoded = parts()
    assert 3 <= len(encoded) < 16
    store = Store(root)
    assert store.current("conllm", "speaker_vectors") is None
    killed(root, lambda: len(trained()) >= 4)
    weights = trained()
    assert 4 <= len(weights) < 24
    assert store.current("conllm", "refiners") is None
    build(str(root))
    assert {name: parts()[name] for name in encoded} == encoded
    manifest = store.current("conllm", "refiners")
    assert manifest
    attached = {name: one.sha256 for name, one in manifest.attached.items()}
    assert len(attached) == 4 * 3 * 2  # variants, generators, folds
    assert {name: attached[name] for name in weights} == weights
    vectors = store.current("conllm", "speaker_vectors")
    assert vectors
    assert vectors.count("rows") == 64
