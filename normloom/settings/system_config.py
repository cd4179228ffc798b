"""Settings shared by all systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, field_validator, model_validator

from normloom.core.errors import ConfigError, UsageError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import QUARANTINE_BUDGET
from normloom.planning.costs.guard import RemakeLimits
from normloom.planning.costs.spending import SpendingLimits
from normloom.run.release import ReleaseSize
from normloom.schemas.taxonomy import BUILTIN as TAXONOMIES
from normloom.schemas.taxonomy import DIMENSIONS, Taxonomy, load_taxonomies
from normloom.schemas.template import FOLDER as TEMPLATES
from normloom.schemas.template import templates_of
from normloom.settings.config import Role, Settings
from normloom.settings.faces.audit_gate import AuditGate, Unaudited
from normloom.tasks.audit.bounds import Bound


def _name_stages(models: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
    for name in models:
        if not name.replace("_", "").isalnum():
            raise ValueError(f"{name!r} names stages and tables; use letters, digits and _")
    return models


NamedModels = Annotated[dict[str, ModelSpec], AfterValidator(_name_stages)]  # by the names that rows and stages carry


class ReleaseSettings(Settings):
    """Minimum size of the released table: a smaller one fails the build, and the previous one stays the newest.

    Also how long a release is fresh: `normloom releases` lists stale ones, and receivers of `stale` are notified.
    """

    min_rows: int = Field(1, ge=0, description="minimum rows of a release")
    min_share_of_last: float | None = Field(
        None, gt=0, le=1, description="share of the previous release's rows; null: any. `serve` sets 0.5"
    )
    fresh_hours: float | None = Field(
        None,
        gt=0,
        description="hours since the start of the last build that made or confirmed it, until it is stale; null: never",
    )

    at_least: tuple[str, ...] = Field(
        (), description='what its audit must show, such as "precision misaligned 0.9": the lower end of the interval'
    )
    unaudited: Unaudited = Field("warn", description="without an audit: warn, or fail and release nothing")

    @field_validator("at_least")
    @classmethod
    def _bounds(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for text in given:
                Bound.parse(text)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return given

    @property
    def gate(self) -> AuditGate | None:
        """The gate on its audit, if it asks for bounds."""
        bounds = [Bound.parse(text) for text in self.at_least]
        return AuditGate(bounds=bounds, unaudited=self.unaudited) if bounds else None

    @property
    def size(self) -> ReleaseSize:
        """The gate of the build."""
        return ReleaseSize(min_rows=self.min_rows, min_share_of_last=self.min_share_of_last, settable=True)


class SpendingSettings(Settings):
    """Limits of a build's use of hosted models (engine openai, or with a price); null: no limit.

    A build that could exceed them does not start; one that reaches them stops and can be resumed.
    """

    max_requests: int | None = Field(20_000, ge=0, description="maximum requests of a build to priced or hosted models")
    max_cost: float | None = Field(10.0, ge=0, description="maximum cost, in the currency of the models' prices")

    @property
    def limits(self) -> SpendingLimits:
        """The limits of the build."""
        return SpendingLimits(max_requests=self.max_requests, max_cost=self.max_cost)


class RemakeSettings(Settings):
    """Limits of what a build may rebuild without a changed setting or input: after an upgrade, for example.

    A build that would rebuild more does not start. Stages that are forced, or built with --fresh, do not count.
    """

    max_stages: int | None = Field(None, ge=0, description="maximum number of stages; null: any. Scheduled builds: 5")
    max_tokens: int | None = Field(None, ge=0, description="maximum tokens that they took when last built")

    @property
    def limits(self) -> RemakeLimits:
        """The limits of the build."""
        return RemakeLimits(stages=self.max_stages, tokens=self.max_tokens)


class SystemConfig(Settings):
    """Base of a system's settings: `DIMENSIONS` of its labels."""

    DIMENSIONS: ClassVar[tuple[str, ...]] = DIMENSIONS

    quarantine_budget: float = Field(QUARANTINE_BUDGET, ge=0, le=1, description="share of a stage's rows")
    release: ReleaseSettings = ReleaseSettings()
    spending: SpendingSettings = SpendingSettings()
    remake: RemakeSettings = RemakeSettings()
    taxonomies: Path = Field(TAXONOMIES, description="folder of label files, one CSV for each dimension")
    templates: Path = Field(TEMPLATES, description="folder of prompt templates")

    @property
    def labels(self) -> tuple[Taxonomy, ...]:
        """The taxonomies, one for each dimension."""
        return load_taxonomies(self.taxonomies, self.DIMENSIONS)

    @property
    def notes(self) -> list[str]:
        """Notes on consequences of the settings."""
        return []

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """Return the roles that models play in the system, those of its section `models`, by name."""
        models = cls.model_fields.get("models")
        kind: Any = models.annotation if models else None
        fields = getattr(kind, "model_fields", {})
        return {
            name: Role(("models", name), several=field.annotation not in {ModelSpec, ModelSpec | None})
            for name, field in fields.items()
        }

    @model_validator(mode="wrap")
    @classmethod
    def _with_templates(cls, settings: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        folder = settings.get("templates", TEMPLATES) if isinstance(settings, Mapping) else TEMPLATES
        if not Path(folder).is_dir():
            raise ConfigError(f"setting templates: {folder} is not a folder")
        with templates_of(Path(folder)):
            return validate(settings)
