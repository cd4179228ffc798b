"""Normloom from Python: declare steps, build them or a system, and look at what was made.

import normloom.api as nl
"""

from __future__ import annotations

from normloom.api.build import build, plan, why
from normloom.api.frames import table
from normloom.api.look import open_store, query, trace
from normloom.api.result import Result
from normloom.args import Args
from normloom.contract import Check, Contract
from normloom.errors import NormloomError
from normloom.fan_out import each, free
from normloom.models.protocol import Embedder, LanguageModel, ModelSpec, Sampling
from normloom.models.yes import yes
from normloom.resources import Resources
from normloom.stage import Output, Stage, dropped_rows
from normloom.step import step

__all__ = [
    "Args",
    "Check",
    "Contract",
    "Embedder",
    "LanguageModel",
    "ModelSpec",
    "NormloomError",
    "Output",
    "Resources",
    "Result",
    "Sampling",
    "Stage",
    "build",
    "dropped_rows",
    "each",
    "free",
    "open_store",
    "plan",
    "query",
    "step",
    "table",
    "trace",
    "why",
    "yes",
]
