"""A system: the type of its settings and the flow that turns them into stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normloom.core.errors import ConfigError
from normloom.core.names import require_name
from normloom.core.rows.text import shown
from normloom.core.stage import Stage
from normloom.settings.faces.about import About
from normloom.settings.faces.chat_face import ChatFace
from normloom.settings.system_config import SystemConfig

if TYPE_CHECKING:  # commands that read need no build
    from rich.console import RenderableType

    from normloom.run.build import BuildResult
    from normloom.store.store import Store
    from normloom.tasks.audit.auditing import AuditView


def nothing(config: Any) -> dict[str, str]:  # noqa: ARG001  # the same for all settings
    """Return what a flow reads of other systems: no table."""
    return {}


@dataclass(frozen=True, kw_only=True)
class System:
    """One dataset or benchmark.

    `flow` returns the last stages of a build, the released table first. `reads` maps, depending on the settings,
    parameters of the flow to published tables of other systems, "SYSTEM/STAGE"; the flow gets a stage for the newest
    such table, or None if none is published. `sections` shows the system's own sections of the summary.
    `about` has the text of its data set card, `audit` the columns that an audit of its release looks at. `chat` opens
    a conversation of a user with a model about the tables that a build has published.
    """

    name: str
    title: str
    config: type[SystemConfig]
    flow: Callable[..., list[Stage]]
    reads: Callable[[Any], Mapping[str, str]] = nothing
    sections: Callable[[BuildResult, Store], list[RenderableType]] | None = None
    about: About | None = None
    audit: AuditView | None = None
    chat: ChatFace | None = None

    def __post_init__(self) -> None:
        require_name(self.name, what="system")

    def stages(self, config: Any, **reads: Any) -> list[Stage]:
        """Return the last stages of a build; raises ConfigError if the flow returns anything else."""
        ends = self.flow(config, **reads)
        if not isinstance(ends, list | tuple) or not ends or not all(isinstance(stage, Stage) for stage in ends):
            raise ConfigError(f"the flow of {self.name} must return a stage or a list of stages, got {shown(ends)}")
        return list(ends)
