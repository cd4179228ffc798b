"""The index of knowledge: all facts in one Parquet file, sorted by what a text must say to mention them.

A file is read by DuckDB as it is: nothing is loaded. A batch of texts is one join, in which the row groups that hold
none of their words are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.readers import LIBRARIES, Located
from normloom.schemas import tables
from normloom.schemas.media import knowledge_tables
from normloom.schemas.media.knowledge_tables import CONCEPTNET, FACT_COLUMNS, LEXICON, SYMBOLS, WIKIDATA, WORDNET
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.knowledge import by_rows
from normloom.tasks.knowledge.streamed import STREAMED, Read
from normloom.tasks.knowledge.wordnet import WordNetFolder

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILE = "facts.parquet"
_HEAVIEST = """
    COPY (
        SELECT * FROM facts WHERE surface <> '' AND tail <> ''
        QUALIFY row_number() OVER (
            PARTITION BY surface, source ORDER BY weight DESC, relation, tail, reference
        ) <= $most
        ORDER BY surface, source, weight DESC, relation, tail, reference
    ) TO $file (FORMAT parquet, ROW_GROUP_SIZE 20480)
"""  # row groups are small, so that few rows are read for a rare word
_LOOK_UP = """
    SELECT known.* FROM read_parquet($file, file_row_number = true) AS known
    SEMI JOIN asked ON known.surface = asked.surface ORDER BY file_row_number
"""


class Indexing(Args):
    """What of the sources is kept."""

    language: str = Field(
        "en", pattern=r"^[a-z]{2,3}(-[a-z]+)?$", description="language of the terms, as the sources code it"
    )
    senses: int = Field(2, ge=1, description="first senses of a lemma that are taken from WordNet")
    per_term: int = Field(20, ge=1, description="facts of one source about one term, the heaviest")
    memory: str = Field(
        "1GB", pattern=r"^\d+[KMG]B$", exclude=True, description="memory that DuckDB may take before it uses the disk"
    )


@step(
    makes=knowledge_tables.KNOWLEDGE,
    files="knowledge",
    needs=Needs(threads=1),
    libraries=(*LIBRARIES, "duckdb"),
    fan_out=free("one row for each source"),
)
def knowledge(
    args: Indexing,
    *,
    conceptnet: Located | None,
    wikidata: Located | None,
    wordnet: WordNetFolder | None,
    lexicon: Located | None,
    symbols: Located | None,
    run: Run,
) -> Output:
    """Index the facts of all sources that are given. Raises SourceError for a file that cannot be read."""
    import duckdb

    draft = run.scratch / "facts.duckdb"
    draft.unlink(missing_ok=True)  # of a run that was killed
    read: dict[str, tuple[str, Read]] = {}
    with closing(duckdb.connect(draft)) as base:
        base.execute(f"SET memory_limit = '{args.memory}'")
        base.execute("SET preserve_insertion_order = false")
        base.register("nothing", pl.DataFrame(schema=FACT_COLUMNS).to_arrow())
        base.execute("CREATE TABLE facts AS SELECT * FROM nothing")
        for name, source in ((CONCEPTNET, conceptnet), (WIKIDATA, wikidata)):
            if source:
                read[name] = source.name, _streamed(base, name, source, args.language)
                run.progress(len(read), len(knowledge_tables.SOURCES))
        for name, where, (facts, count) in _by_rows(args, wordnet, lexicon, symbols):
            base.register("further", facts.to_arrow())
            base.execute("INSERT INTO facts SELECT * FROM further")
            read[name] = where, count
            run.progress(len(read), len(knowledge_tables.SOURCES))
        base.execute(_HEAVIEST, {"most": args.per_term, "file": str(run.files / FILE)})
    draft.unlink()
    kept = pl.scan_parquet(run.files / FILE).group_by("source").agg(pl.len(), pl.col("surface").n_unique()).collect()
    counts = {source: (facts, surfaces) for source, facts, surfaces in kept.iter_rows()}
    rows = [
        {
            "source": name,
            "name": Path(where).name,
            "read": count.read,
            "rejected": count.rejected,
            "facts": counts.get(name, (0, 0))[0],
            "surfaces": counts.get(name, (0, 0))[1],
            "parents": [],
            "content": name,
        }
        for name, (where, count) in read.items()
    ]
    schema = tables.named_by_content(knowledge_tables.KNOWLEDGE)
    return Output(rows=pl.DataFrame(rows, schema=schema), attempts=len(rows))


def _streamed(base: DuckDBPyConnection, name: str, source: Located, language: str) -> Read:
    import duckdb

    try:
        return STREAMED[name](base, source, language)
    except duckdb.Error as error:
        raise SourceError(f"{source.name} cannot be read as {name}: {str(error).splitlines()[0]}") from error


def _by_rows(
    args: Indexing, wordnet: WordNetFolder | None, lexicon: Located | None, symbols: Located | None
) -> Iterator[tuple[str, str, tuple[pl.DataFrame, Read]]]:
    if wordnet:
        yield WORDNET, str(wordnet.folder), by_rows.wordnet(wordnet, most=args.senses)
    if lexicon:
        yield LEXICON, lexicon.name, by_rows.lexicon(lexicon)
    if symbols:
        yield SYMBOLS, symbols.name, by_rows.symbols(symbols)


def looked_up(files: Path, surfaces: Iterable[str]) -> pl.DataFrame:
    """Return the facts about these surfaces (in lower case), under `FACT_COLUMNS`, in the order of the index."""
    import duckdb

    asked = pl.DataFrame({"surface": list(surfaces)}, schema={"surface": pl.String})
    with closing(duckdb.connect()) as base:
        base.register("asked", asked.to_arrow())
        found = base.sql(_LOOK_UP, params={"file": str(files / FILE)}).to_arrow_table()
    frame = pl.DataFrame(found)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in FACT_COLUMNS.items())
