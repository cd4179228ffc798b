"""Normloom from Python: declare steps, build them or a system, and inspect the results.

import normloom as nl

Names are imported on first use, so that a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normloom.api.build import build as build
    from normloom.api.build import plan as plan
    from normloom.api.build import why as why
    from normloom.api.forget import forget as forget
    from normloom.api.forget import purge as purge
    from normloom.api.frames import table as table
    from normloom.api.labels import open_queue as open_queue
    from normloom.api.labels import queues as queues
    from normloom.api.look import diff as diff
    from normloom.api.look import open_store as open_store
    from normloom.api.look import query as query
    from normloom.api.look import trace as trace
    from normloom.api.release import export as export
    from normloom.api.result import Result as Result
    from normloom.core.compared import Compared as Compared
    from normloom.core.contract import Check as Check
    from normloom.core.contract import Contract as Contract
    from normloom.core.errors import AccountingError as AccountingError
    from normloom.core.errors import BuildCancelledError as BuildCancelledError
    from normloom.core.errors import CheckError as CheckError
    from normloom.core.errors import ClusterError as ClusterError
    from normloom.core.errors import ConfigError as ConfigError
    from normloom.core.errors import ContractError as ContractError
    from normloom.core.errors import EngineDiedError as EngineDiedError
    from normloom.core.errors import ModelError as ModelError
    from normloom.core.errors import NormloomError as NormloomError
    from normloom.core.errors import PartlyMadeError as PartlyMadeError
    from normloom.core.errors import QuarantineBudgetError as QuarantineBudgetError
    from normloom.core.errors import ReleaseError as ReleaseError
    from normloom.core.errors import SourceError as SourceError
    from normloom.core.errors import SpendingError as SpendingError
    from normloom.core.errors import StageError as StageError
    from normloom.core.errors import StoreError as StoreError
    from normloom.core.errors import UsageError as UsageError
    from normloom.core.errors import WaitingError as WaitingError
    from normloom.core.fan_out import each as each
    from normloom.core.fan_out import free as free
    from normloom.core.models.needs import Needs as Needs
    from normloom.core.models.product_model import ProductFiles as ProductFiles
    from normloom.core.models.protocol import Embedder as Embedder
    from normloom.core.models.protocol import LanguageModel as LanguageModel
    from normloom.core.models.protocol import ModelSpec as ModelSpec
    from normloom.core.models.protocol import Sampling as Sampling
    from normloom.core.run import Run as Run
    from normloom.core.stage import Output as Output
    from normloom.core.stage import Stage as Stage
    from normloom.core.stage import dropped_rows as dropped_rows
    from normloom.labelling.questions import Question as Question
    from normloom.labelling.queue import LabelQueue as LabelQueue
    from normloom.models.requests.yes import yes as yes
    from normloom.steps.args import Args as Args
    from normloom.steps.products import files_of as files_of
    from normloom.steps.products import model_from as model_from
    from normloom.steps.products import routed as routed
    from normloom.steps.products import with_adapter as with_adapter
    from normloom.steps.step import step as step
    from normloom.tasks.labels.ask import ask as ask
    from normloom.tasks.labels.recorded import labels as labels
    from normloom.workers.resources import Resources as Resources

    __version__: str


HOMES = {
    "AccountingError": "normloom.core.errors",
    "Args": "normloom.steps.args",
    "BuildCancelledError": "normloom.core.errors",
    "Check": "normloom.core.contract",
    "CheckError": "normloom.core.errors",
    "ClusterError": "normloom.core.errors",
    "Compared": "normloom.core.compared",
    "ConfigError": "normloom.core.errors",
    "Contract": "normloom.core.contract",
    "ContractError": "normloom.core.errors",
    "Embedder": "normloom.core.models.protocol",
    "EngineDiedError": "normloom.core.errors",
    "LabelQueue": "normloom.labelling.queue",
    "LanguageModel": "normloom.core.models.protocol",
    "ModelError": "normloom.core.errors",
    "ModelSpec": "normloom.core.models.protocol",
    "Needs": "normloom.core.models.needs",
    "NormloomError": "normloom.core.errors",
    "Output": "normloom.core.stage",
    "ProductFiles": "normloom.core.models.product_model",
    "PartlyMadeError": "normloom.core.errors",
    "QuarantineBudgetError": "normloom.core.errors",
    "Question": "normloom.labelling.questions",
    "ReleaseError": "normloom.core.errors",
    "Resources": "normloom.workers.resources",
    "Result": "normloom.api.result",
    "Run": "normloom.core.run",
    "Sampling": "normloom.core.models.protocol",
    "SourceError": "normloom.core.errors",
    "SpendingError": "normloom.core.errors",
    "Stage": "normloom.core.stage",
    "StageError": "normloom.core.errors",
    "StoreError": "normloom.core.errors",
    "UsageError": "normloom.core.errors",
    "WaitingError": "normloom.core.errors",
    "ask": "normloom.tasks.labels.ask",
    "build": "normloom.api.build",
    "diff": "normloom.api.look",
    "dropped_rows": "normloom.core.stage",
    "each": "normloom.core.fan_out",
    "export": "normloom.api.release",
    "files_of": "normloom.steps.products",
    "forget": "normloom.api.forget",
    "free": "normloom.core.fan_out",
    "labels": "normloom.tasks.labels.recorded",
    "model_from": "normloom.steps.products",
    "open_queue": "normloom.api.labels",
    "open_store": "normloom.api.look",
    "plan": "normloom.api.build",
    "purge": "normloom.api.forget",
    "query": "normloom.api.look",
    "queues": "normloom.api.labels",
    "routed": "normloom.steps.products",
    "step": "normloom.steps.step",
    "table": "normloom.api.frames",
    "trace": "normloom.api.look",
    "why": "normloom.api.build",
    "with_adapter": "normloom.steps.products",
    "yes": "normloom.models.requests.yes",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("normloom")
    if name not in HOMES:
        raise AttributeError(f"module 'normloom' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
