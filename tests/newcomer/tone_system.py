"""A system of one's own: prompts, and how polite a model finds each of them."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.contract import Check, Contract
from normloom.flows.savacu_config import SourceSettings
from normloom.flows.system import System
from normloom.flows.system_config import SystemConfig
from normloom.models.protocol import LanguageModel, ModelSpec, ScoreRequest
from normloom.readers import Reading
from normloom.schemas.prompts import MEASURE
from normloom.schemas.template import Template
from normloom.stage import Output, Stage
from normloom.tasks.classify import YES_NO, yes_probability
from normloom.tasks.ingest import ingest, ingestion

TONES = Contract(
    columns={"prompt": pl.String(), "polite": pl.Float64()},
    checks=(Check(expectation="expect_column_mean_to_be_between", arguments={"column": "polite", "max_value": 1}),),
)
QUESTION = Template(name="tone", sections={"context": "Prompt: $prompt", "question": "Is it polite? Answer Yes or No."})


class Asking(BaseModel):
    model_config = ConfigDict(frozen=True)
    template: Template


class ToneConfig(SystemConfig):
    source: SourceSettings = SourceSettings()
    model: ModelSpec = ModelSpec(engine="scripted", model="tone")


def ask(rows: pl.DataFrame, arguments: Asking, model: LanguageModel) -> Output:
    question = arguments.template.render("question")
    contexts = [arguments.template.render("context", prompt=prompt) for prompt in rows["prompt"]]
    requests = [ScoreRequest(instruction="", context=text, questions=(question,), answers=YES_NO) for text in contexts]
    polite = [yes_probability(scores.logprobs[0]) for scores in model.score(requests)]
    return Output(rows=rows.select("row_id", "prompt", pl.Series("polite", polite)))


def tone(config: ToneConfig) -> list[Stage]:
    path = config.source.path or MEASURE
    prompts = ingest(
        ingestion(path, Reading(limit=config.source.limit), text_column=config.source.text_column, taxonomies=())
    )
    asking = Asking(template=QUESTION)
    return [Stage(name="tone", function=ask, arguments=asking, contract=TONES, inputs=(prompts,), model=config.model)]


TONE = System(name="tone", title="Tone of prompts", config=ToneConfig, flow=tone)
