"""The settings of AlignX. docs/alignx.md says which defaults are the paper's and which are ours."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.flows.alignx.axes import AxisSource
from normloom.schemas.training.alignx_tables import HARMLESS, HELPFUL, HONEST
from normloom.settings.config import Settings, section
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.alignx.answers import Answers
from normloom.tasks.alignx.calibrate import Calibrating
from normloom.tasks.alignx.inject import Injecting
from normloom.tasks.alignx.merge import Merging
from normloom.tasks.alignx.probe import Probing
from normloom.tasks.alignx.router import Routing
from normloom.tasks.media.encode import MediaEncoding
from normloom.tasks.tradeoff.axis_rows import SplittingAxes
from normloom.tasks.tradeoff.compared import Comparing
from normloom.tasks.tradeoff.nearness import Nearness
from normloom.tasks.tradeoff.safety import SafetyJudging, SafetyScoring
from normloom.tasks.tuning.policies import in_float32
from normloom.tasks.tuning.supervised import Tuning


class SourceSettings(AxisSource, SplittingAxes):
    """Prompts of each axis, and which of them train, choose and test; our own without a path.

    A folder may hold published sets in folders of their names; a file has axis and prompt.
    """


class Models(Settings):
    """The model of each role."""

    policy: ModelSpec | None = Field(
        None,
        description="the model that is tuned for each axis (engine transformers); null: router and calibrators only",
    )
    served: ModelSpec | None = Field(
        None, description="the same weights as they answer, such as by engine vllm; null: `policy`"
    )
    encoder: ModelSpec = Field(
        ModelSpec(engine="embedding", model="all-MiniLM-L6-v2"),
        description="computes the states that the router reads; the answering model itself if it is named here",
    )
    judges: NamedModels = Field(
        default_factory=dict, description="models that are asked in both orders which of two replies is better, by name"
    )


class AlignxConfig(SystemConfig):
    """All settings of one build."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    axes: tuple[str, ...] | None = Field(
        None, min_length=2, description="axes of the source; null: helpful, harmless, honest, or the table's dimensions"
    )
    models: Models = section(Models)
    inject: Injecting = section(Injecting)
    encode: MediaEncoding = section(MediaEncoding)
    probe: Probing = section(Probing)
    router: Routing = section(Routing)
    calibrate: Calibrating = section(Calibrating)
    calibrated_by: Literal["global", "local"] = Field(
        "local", description="temperatures of the system `calibrated`: one for all, or by neighbourhood"
    )
    tune: Tuning = section(Tuning)
    merge: Merging = section(Merging)
    answers: Answers = section(Answers)
    nearness: Nearness = section(Nearness)
    safety: SafetyScoring = section(SafetyScoring)
    unsafe: SafetyJudging = section(SafetyJudging)
    compare: Comparing = section(Comparing)

    @property
    def names(self) -> tuple[str, ...]:
        """The axes."""
        if self.axes is not None:
            return self.axes
        return self.source.dimensions if self.source.table else (HELPFUL, HARMLESS, HONEST)

    @property
    def policy(self) -> ModelSpec | None:
        """The model that is tuned, in float32 unless it says otherwise.

        Raises ConfigError for one whose engine cannot be tuned, or if what tunes it is not installed.
        """
        policy = self.models.policy
        if policy is None:
            return None
        if policy.engine != "transformers":
            raise ConfigError(f"models.policy: engine {policy.engine} cannot be trained; use transformers")
        if (policy.gpus or 0) > 1:
            raise ConfigError(f"models.policy: an expert is tuned on one GPU, gpus is {policy.gpus:g}")
        if absent := [name for name in ("trl", "peft") if find_spec(name) is None]:
            raise ConfigError(
                f"models.policy is tuned with {' and '.join(absent)}, not installed here: pip install "
                "'normloom[train]', or --set models.policy=null for router and calibrators only"
            )
        return in_float32(policy)

    @model_validator(mode="after")
    def _has_policy(self) -> Self:
        if self.models.served and not self.models.policy:
            raise ValueError("models.served: it answers with what models.policy learns; name that, too")
        return self
