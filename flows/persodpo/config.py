"""The settings of PersoDPO. The defaults are the paper's values, as its code has them where its text differs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from normloom.core.errors import ConfigError, SourceError
from normloom.core.models.protocol import ModelSpec
from normloom.flows.savacu.decontamination import Decontamination
from normloom.readers import Located, locate
from normloom.readers.opening import COMPRESSIONS
from normloom.schemas.personas import PROMPTS
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.preferences.dpo.log_probs import PairReading
from normloom.tasks.preferences.dpo.train_dpo import Dpo, require_trainable
from normloom.tasks.preferences.judge_entailment import Entailment
from normloom.tasks.preferences.measure import Measuring
from normloom.tasks.preferences.pairs import Pairing
from normloom.tasks.preferences.prompts import PersonaPrompts
from normloom.tasks.preferences.quality import Length, Quality
from normloom.tasks.preferences.replies import Replying


class SourceSettings(FileSettings, PersonaPrompts):
    """Prompts of persona dialogue, or replies to them with their released signals; built-in prompts without a path.

    `published` names a released table of aligned and misaligned responses whose pairs are used instead.
    """

    holds: Literal["prompts", "replies"] = Field(
        "prompts", description="what the file has: prompts, or replies to them"
    )
    prompts: SourceName | None = Field(
        None,
        description="file of the prompts answered by the replies, or of those that evaluate what `published` trained; "
        "null: `prompts` next to the replies, same format, or the built-in ones",
    )
    validation: SourceName | None = Field(
        None, description="file of replies to the validation prompts by policies, with their released signals"
    )
    published: str | None = Field(
        None, pattern=r"^\w+/\w+$", description="released table whose pairs are used, such as savacu/publish"
    )

    @model_validator(mode="after")
    def _is_one_source(self) -> Self:
        if self.published and self.path:
            raise ValueError("published and path both name a source: set one of them")
        return self

    @property
    def located_prompts(self) -> Located:
        """The file of the prompts."""
        if self.path is None and self.holds == "replies" and not self.published:
            raise ConfigError("source.holds is replies, but no file is given: name it with --source")
        if self.published or self.path is None:
            return locate(self.prompts or str(PROMPTS))
        if self.holds == "prompts":
            return self.located()
        return locate(self.prompts) if self.prompts else _beside(self.path)


def _beside(replies: str) -> Located:
    """Return the prompts that lie next to the replies, in the same format; raises ConfigError if there are none."""
    suffixes = Path(urlsplit(replies).path).suffixes
    form = "".join(suffixes[-2:] if suffixes and suffixes[-1] in COMPRESSIONS else suffixes[-1:])
    folder, slash, _ = replies.rstrip("/").rpartition("/")
    beside = f"{folder}{slash}prompts{form}"
    try:
        return locate(beside)
    except SourceError as error:
        raise ConfigError(f"source.prompts: name the prompts that the replies answer ({error})") from error


class QualitySettings(Length, Quality):
    """How the quality of a reply is made of its signals."""


class EvaluateSettings(Replying):
    """How policies answer the validation prompts: greedy, once."""

    replies: int = Field(1, ge=1, le=1, description="replies of each policy to a prompt")


class Models(Settings):
    """The model of each role; `generators` by the name that rows carry."""

    generators: NamedModels = Field(default_factory=dict, description="models that reply, by the names that rows carry")
    policies: NamedModels = Field(
        default_factory=dict, description="models that are evaluated on the validation prompts, by name"
    )
    policy: ModelSpec | None = Field(
        None, description="the model that is trained on the pairs (engine transformers); null: pairs only"
    )
    encoder: ModelSpec = Field(
        ModelSpec(engine="embedding", model="all-MiniLM-L6-v2"), description="measures signals by sentence vectors"
    )
    nli: ModelSpec | None = Field(
        None, description="judges what a reply says about persona and reference; null: by sentence vectors too"
    )


class PersodpoConfig(SystemConfig):
    """All settings of one build."""

    source: SourceSettings = section(SourceSettings)
    models: Models = section(Models)
    reply: Replying = section(Replying)
    evaluate: EvaluateSettings = section(EvaluateSettings)
    signals: Measuring = section(Measuring)
    entailment: Entailment = section(Entailment)
    quality: QualitySettings = section(QualitySettings)
    pairs: Pairing = section(Pairing)
    decontaminate: Decontamination = section(Decontamination)
    log_probs: PairReading = section(PairReading)
    train: Dpo = section(Dpo)
    baseline: bool = Field(
        default=True,
        description="train a second policy on the pairs of the simple baseline; false if every reply parsed, as then "
        "there are none",
    )

    @property
    def policy(self) -> ModelSpec | None:
        """The model that is trained, in float32 unless it says otherwise: what it read before is what it trains from.

        Raises ConfigError for one whose engine cannot be trained, or if what trains is not installed.
        """
        policy = self.models.policy
        if policy is None:
            return None
        if policy.engine != "transformers":
            raise ConfigError(f"models.policy: engine {policy.engine} cannot be trained; use transformers")
        require_trainable(policy, self.train)
        if absent := [name for name in ("trl", "peft") if find_spec(name) is None]:
            raise ConfigError(
                f"models.policy is trained with {' and '.join(absent)}, not installed here: pip install "
                "'normloom[train]', or --set models.policy=null to make pairs only"
            )
        return policy.model_copy(update={"dtype": "float32"}) if policy.dtype == "auto" else policy

    @model_validator(mode="after")
    def _has_replies(self) -> Self:
        if self.source.holds == "prompts" and not self.source.published and not self.models.generators:
            raise ValueError(
                "models.generators: no model replies to the prompts; name one, or set source.holds=replies"
            )
        return self
