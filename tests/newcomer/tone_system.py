"""A system of one's own: prompts, and how polite a model finds each of them."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.core.fan_out import each
from normloom.core.models.protocol import LanguageModel, ModelSpec, ScoreRequest
from normloom.core.stage import Stage
from normloom.flows.savacu.config import SourceSettings
from normloom.schemas.prompts import MEASURE
from normloom.schemas.template import Template
from normloom.settings.config import section
from normloom.settings.system import System
from normloom.settings.system_config import SystemConfig
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.prompts.classify import YES_NO, yes_probability
from normloom.tasks.prompts.ingest import ingest

TONES = Contract(
    columns={"prompt": pl.String(), "polite": pl.Float64()},
    checks=(Check(expectation="expect_column_mean_to_be_between", arguments={"column": "polite", "max_value": 1}),),
)
QUESTION = Template(name="tone", sections={"context": "Prompt: $prompt", "question": "Is it polite? Answer Yes or No."})


class Asking(Args):
    template: Template = QUESTION


class ToneConfig(SystemConfig):
    source: SourceSettings = section(SourceSettings)
    tone: Asking = section(Asking)
    model: ModelSpec = ModelSpec(engine="scripted", model="tone")


@step(makes=TONES, fan_out=each())
def tone(rows: pl.DataFrame, args: Asking, model: LanguageModel) -> pl.DataFrame:
    question = args.template.render("question")
    contexts = [args.template.render("context", prompt=prompt) for prompt in rows["prompt"]]
    requests = [ScoreRequest(instruction="", context=text, questions=(question,), answers=YES_NO) for text in contexts]
    polite = [yes_probability(scores.logprobs[0]) for scores in model.score(requests)]
    return rows.select("row_id", "prompt", pl.Series("polite", polite))


def tones(config: ToneConfig) -> list[Stage]:
    source = config.source if config.source.path else SourceSettings(path=str(MEASURE), limit=config.source.limit)
    prompts = ingest(source, source=source.located(source.limit))
    return [tone(prompts, config.tone, config.model)]


TONE = System(name="tone", title="Tone of prompts", config=ToneConfig, flow=tones)
