"""Normloom from Python: declare steps, build them or a system, and look at what was made.

import normloom.api as nl
"""

from __future__ import annotations

from normloom.api.build import build, plan, why
from normloom.api.frames import table
from normloom.api.look import open_store, query, trace
from normloom.api.result import Result
from normloom.core.contract import Check, Contract
from normloom.core.errors import NormloomError
from normloom.core.fan_out import each, free
from normloom.core.protocol import Embedder, LanguageModel, ModelSpec, Sampling
from normloom.core.stage import Output, Stage, dropped_rows
from normloom.models.yes import yes
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.workers.resources import Resources

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
