"""The knowledge index on a generated dump in ConceptNet's layout: build time and memory, look-ups per second.

python benchmarks/knowledge.py [--edges 5000000] [--memory 1GB]
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from normloom.core.run import Run
from normloom.readers import locate
from normloom.tasks.knowledge.index import FILE, Indexing, knowledge, looked_up

EDGES = 5_000_000
TERMS_PER_EDGE = 0.2
RELATIONS = ("RelatedTo", "IsA", "UsedFor", "AtLocation", "Synonym", "HasContext")
BATCHES = (1, 100, 10_000)
SEED = 42


def dump(path: Path, edges: int) -> None:
    """Write a gzipped dump: terms of one to three words, a few with very many assertions, as in ConceptNet."""
    draw = random.Random(SEED)  # noqa: S311  # no secrets
    terms = [term(number) for number in range(max(int(edges * TERMS_PER_EDGE), 2))]
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as stream:
        for _ in range(edges):
            start, end = (terms[int(len(terms) * draw.random() ** 3)] for _ in range(2))
            relation, weight = draw.choice(RELATIONS), draw.choice((1.0, 2.0, 3.464))
            told = {"dataset": "/d/conceptnet/4/en", "license": "cc:by/4.0", "weight": weight}
            nodes = f"/r/{relation}\t/c/en/{start}\t/c/en/{end}"
            uri = f"/a/[/r/{relation}/,/c/en/{start}/,/c/en/{end}/]"
            stream.write(f"{uri}\t{nodes}\t{json.dumps(told)}\n")


def term(number: int) -> str:
    """Return a made-up term."""
    syllables = ("ba", "co", "di", "fu", "ga", "he", "ji", "ko", "lu", "mo", "na", "pi", "ra", "su", "to", "ve")
    letters = [syllables[(number >> shift) & 15] for shift in range(0, 24, 4)]
    return "".join(letters[:3]) + ("_" if number % 3 == 0 else "") + "".join(letters[3:])


def built(folder: str, path: str, memory: str, answers: Any) -> None:
    """Build the index, and send what it took: seconds, facts, peak memory in MB."""
    scratch, files = Path(folder) / "scratch", Path(folder) / "files"
    scratch.mkdir()
    files.mkdir()
    source, before = locate(path), _peak()
    begun = time.perf_counter()
    made = knowledge.function(
        Indexing(memory=memory),
        conceptnet=source,
        wikidata=None,
        wordnet=None,
        lexicon=None,
        symbols=None,
        run=Run(scratch, files),
    )
    answers.put((time.perf_counter() - begun, made.rows.row(0, named=True), before, _peak()))


def looked(folder: str, terms: int, answers: Any) -> None:
    """Look terms up in batches, and send the seconds of each, and the peak memory in MB."""
    draw = random.Random(SEED)  # noqa: S311
    files, before, seconds = Path(folder) / "files", _peak(), {}
    for size in BATCHES:
        asked = [term(draw.randrange(2 * terms)).replace("_", " ") for _ in range(size)]  # half of them are unknown
        looked_up(files, asked[:1])
        begun = time.perf_counter()
        found = looked_up(files, asked).height
        seconds[size] = (time.perf_counter() - begun, found)
    answers.put((seconds, before, _peak()))


def apart(function: Any, *given: Any) -> Any:
    """Return what a function sends, run in a process of its own whose memory is measured."""
    context = get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=function, args=(*given, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=EDGES)
    parser.add_argument("--memory", default="1GB", help="memory limit of DuckDB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "assertions.csv.gz"
        dump(path, options.edges)
        print(f"dump: {options.edges:,} edges, {path.stat().st_size / 1e6:,.0f} MB")
        seconds, row, before, peak = apart(built, folder, str(path), options.memory)
        size = (Path(folder) / "files" / FILE).stat().st_size / 1e6
        told = f"{seconds:,.1f} s, {options.edges / seconds:,.0f} edges/s"
        print(f"build: {told}, peak {peak:,.0f} MB ({before:,.0f} before)")
        print(f"index: {row['facts']:,} facts about {row['surfaces']:,} terms, {size:,.0f} MB")
        timed, before, peak = apart(looked, folder, int(options.edges * TERMS_PER_EDGE))
        for batch, (took, found) in timed.items():
            print(f"look-up of {batch:>6,} terms: {took:.3f} s, {batch / took:>9,.0f} terms/s, {found:,} facts")
        print(f"look-ups: peak {peak:,.0f} MB ({before:,.0f} before)")


if __name__ == "__main__":
    main()
