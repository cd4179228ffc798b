"""One step of the DVC pipeline: STEP, the file it reads, the file it writes."""

from __future__ import annotations

import sys

import polars as pl

from orchestrated import steps
from orchestrated.settings import Settings

step, source, out = sys.argv[1:]
arguments = [Settings.read().threshold] if step == "judge" else []
getattr(steps, step)(pl.read_parquet(source), *arguments).write_parquet(out)
