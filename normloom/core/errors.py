"""Every error that Normloom raises on purpose.

A message names the file, row, column, stage or setting, what was expected and what to do.
"""

from __future__ import annotations


class NormloomError(Exception):
    """Base of all errors raised on purpose; `page` is the path, in Prefect's UI, of the failed build's page."""

    page: str | None = None


class UsageError(NormloomError):
    """The command or its input cannot be used as given; nothing was started."""


class SourceError(UsageError):
    """An input file cannot be read."""


class ConfigError(UsageError):
    """A setting, profile, taxonomy or template is wrong."""


class StoreError(NormloomError):
    """The store cannot be read or written, or a stored table is damaged."""


class ContractError(NormloomError):
    """A stage made rows that its contract does not allow."""


class AccountingError(NormloomError):
    """Rows in differ from rows out, dropped and quarantined together."""


class CheckError(NormloomError):
    """A check that stops the build did not pass."""


class QuarantineBudgetError(NormloomError):
    """A stage quarantined more rows than its budget allows."""


class ReleaseError(NormloomError):
    """A table is too small to be released; the release before it stays the newest."""


class SpendingError(NormloomError):
    """The build has reached its limit of requests or cost; it can be resumed with a higher one."""


class StageError(NormloomError):
    """A stage failed."""


class ModelError(NormloomError):
    """A model cannot be found, loaded or run."""


class EngineDiedError(ModelError):
    """The engine's own process is gone: the actor that holds it must end."""


class ClusterError(NormloomError):
    """The machines or processes that hold the models are gone; a retry may find others."""


class WaitingError(NormloomError):
    """Work that was sent elsewhere is not back yet; rerun the command later to collect it.

    `command` is what a person runs meanwhile, with the build's store.
    """

    def __init__(self, told: str, *, command: str = "") -> None:
        super().__init__(f"{told}: {command}" if command else told)
        self.command = command


class PartlyMadeError(WaitingError):
    """Chosen parts of a table are made and others are left, so it is not published yet."""


class BuildCancelledError(NormloomError):
    """The build was cancelled."""


def cause(error: BaseException) -> str:
    """Return an error on one line: the message of one of ours, others with their type."""
    return str(error) if isinstance(error, NormloomError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
