"""A store to look at: hostile texts, drawn candidates of which one is kept, a quarantined row, two builds."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Contract
from normloom.core.stage import Output, Stage, dropped, dropped_frame, quarantined, quarantined_frame
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import words_stage

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> & <b>bold</b>"
DRAWN = Contract(columns={"word": pl.String(), "draw": pl.Int64(), "reply": pl.String(), "score": pl.Float64()})


class Factor(BaseModel):
    model_config = ConfigDict(frozen=True)
    factor: float = 1.0


def draw(rows: pl.DataFrame, arguments: Factor) -> Output:
    """Draw three replies to each word but "aside", which is quarantined."""
    aside = [quarantined(row, "letters", "it is the word aside") for row in rows.filter(word="aside").to_dicts()]
    drawn = [
        {
            "row_id": row_id,
            "word": word,
            "draw": number,
            "reply": f"reply {number} to {word}",
            "score": number / 2 * arguments.factor,
        }
        for row_id, word in rows.filter(pl.col("word") != "aside").select("row_id", "word").iter_rows()
        for number in range(3)
    ]
    return Output(rows=pl.DataFrame(drawn), quarantined=quarantined_frame(aside), attempts=len(drawn) + len(aside))


def publish(rows: pl.DataFrame, arguments: Factor) -> Output:  # noqa: ARG001  # as stages are called
    """Keep the second reply of each word."""
    winners = {row["word"]: row["row_id"] for row in rows.filter(draw=1).to_dicts()}
    out = [
        dropped(row, "lower score", winner=winners[row["word"]]) for row in rows.filter(pl.col("draw") != 1).to_dicts()
    ]
    return Output(rows=rows.filter(draw=1), dropped=dropped_frame(out))


def stages(*words: str, factor: float = 1.0) -> Stage:
    first = words_stage(*words)
    drawn = Stage(name="draw", function=draw, arguments=Factor(factor=factor), contract=DRAWN, inputs=(first,))
    return Stage(name="publish", function=publish, arguments=Factor(), contract=DRAWN, inputs=(drawn,))


def view_store(root: Path) -> Store:
    """Return a store with two builds of the toy system: the second has one word more and doubled scores."""
    store = Store(root)
    words = (HOSTILE, "aside", *(f"word {number}" for number in range(60)))
    built(store, stages(*words), build=build_id(1))
    built(store, stages(*words, "added later", factor=2.0), build=build_id(2))
    return store
