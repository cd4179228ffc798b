"""How polite a model finds each prompt: `normloom build examples/politeness.py`."""

import polars as pl

import normloom as nl

PROMPTS = [
    {"prompt": "Could you tell me how to renew a passport, please?"},
    {"prompt": "Write my essay. Now."},
    {"prompt": "I would be grateful for a recipe without nuts."},
]
MODEL = nl.ModelSpec(model="SmolLM2-135M-Instruct")


@nl.step(makes={"prompt": pl.String, "polite": pl.Float64}, fan_out=nl.each())
def tone(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    return rows.with_columns(polite=nl.yes(model, "Is it polite?", rows["prompt"]))


def flow() -> nl.Stage:
    return tone(nl.table(PROMPTS, name="prompts"), MODEL)
