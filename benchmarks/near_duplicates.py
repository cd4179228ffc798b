"""Near-duplicates: our exact search beside faiss, and our texts to pairs beside MinHash LSH.

The texts are made of the halves of real prompts (`--prompts`: a Parquet file with a column `prompt`): the first half
of one and the second of another, the earlier ones drawn more often, so that bands are skewed and clusters dense. One
in twenty is a light edit of an earlier text. Each method runs in a process of its own (`--peers` names the Python of an
environment with faiss-cpu, datasketch, rensa and simhash), twice; our second run has one thread.

Oracles: every distance of all pairs of codes; every Jaccard similarity of all pairs of texts, counted shingle by
shingle. `recall` and `precision` are over pairs; `planted` is the share of light edits found with their source.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numba
import numpy as np
import polars as pl
from common import Report, parser

from normloom.features import Features
from normloom.simhash import pack, shingle_set

SCRIPT = Path(__file__).parent / "peers" / "near_duplicate_methods.py"
OURS = ("normloom codes", "normloom search", "normloom simhash")
TAU, JACCARD = 10, 0.7
PLANTED = 0.05
ORACLE_ROWS = 100_000


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--prompts", type=Path, required=True)
    arguments.add_argument("--rows", type=int, nargs="+", default=[100_000])
    arguments.add_argument("--slow-rows", type=int, default=2_000, help="of the package simhash, which is quadratic")
    arguments.add_argument("--peers", help="the Python of the peers' environment; without it they are left out")
    arguments.add_argument("--methods", nargs="+", default=["faiss", "datasketch", "rensa", "simhash"])
    given = arguments.parse_args()
    report = Report(given.json)
    for rows in given.rows:
        with TemporaryDirectory(prefix="normloom-bench-") as folder:
            measure(Path(folder), rows, given, report)
    report.end()


def measure(folder: Path, rows: int, given: Namespace, report: Report) -> None:
    """Run all methods on as many texts and add their tables."""
    texts, planted = made_texts(given.prompts, rows)
    source = folder / "texts.parquet"
    pl.DataFrame({"text": texts}).write_parquet(source, row_group_size=50_000)
    small = rows <= ORACLE_ROWS
    by_jaccard = similar_pairs(texts) if small else None
    del texts
    coded, _ = twice(folder, "normloom codes", source, given, report)
    codes = folder / "normloom codes.0.codes.npy"
    exact = [figures_of(coded, rows, brute_force(np.load(codes)) if small else None, None)]
    peers = [name for name in given.methods if given.peers and (small or name == "faiss")]
    if "faiss" in peers:
        found, truth = twice(folder, "faiss", codes, given, report)
        exact = [figures_of(coded, rows, truth, None), figures_of(found, rows, truth, None)]
        report.note("faiss and we found the same pairs" if found["digest"] == coded["digest"] else "PAIRS DIFFER")
    report.add(f"{rows:,} texts: all pairs of codes nearer than {TAU}", with_ratio(exact))
    report.tables[f"{rows:,} texts: making the codes"] = [
        {name: value for name, value in coded.items() if name.startswith("fingerprint")}
    ]
    if not small:
        return
    near = []
    for name in ["normloom simhash", *(peer for peer in peers if peer != "faiss")]:
        some = source if name != "simhash" else folder / "few.parquet"
        if name == "simhash":
            pl.read_parquet(source).head(given.slow_rows).write_parquet(some)
        found, _ = twice(folder, name, some, given, report)
        size = rows if name != "simhash" else given.slow_rows
        near.append(figures_of(found, size, by_jaccard, planted))
    report.add(f"{rows:,} texts: near-duplicates with a shingle Jaccard of {JACCARD} or more", with_ratio(near))


def twice(
    folder: Path, method: str, source: Path, given: Namespace, report: Report
) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Run a method twice; return the first run's figures, with whether both found the same, and its pairs."""
    runs = []
    for run in range(2):
        report.note(f"{method}, run {run + 1}")
        target = folder / f"{method}.{run}.npy"
        python = sys.executable if method in OURS else given.peers
        command = [python, str(SCRIPT), method, str(source), str(target), str(run)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{method} failed:\n{done.stderr[-3000:]}")
        runs.append({"method": method, **json.loads(done.stdout.strip().splitlines()[-1])})
        runs[-1] |= {"load": os.getloadavg()[0], "found": np.load(target)}
    first, second = runs
    first["same"] = first["digest"] == second["digest"]
    first["again_cpu_s"] = second["search_cpu_s"]
    return first, first["found"]


def figures_of(run: dict[str, Any], rows: int, truth: Any, planted: Any) -> dict[str, Any]:
    """Return the row of a table."""
    recall = precision = None
    found = as_keys(run["found"])
    if truth is not None:
        wanted = as_keys(truth[:, truth[1] < rows])
        shared = len(np.intersect1d(found, wanted, assume_unique=True))
        recall, precision = shared / max(len(wanted), 1), shared / max(len(found), 1)
    row = {
        "method": run["method"],
        "rows": rows,
        "wall_s": run["search_s"],
        "cpu_s": run["search_cpu_s"],
        "cpu_s_again": run["again_cpu_s"],
        "peak_mb": run["peak_mb"],
        "pairs": run["pairs"],
        "recall": recall,
        "precision": precision,
    }
    if planted is not None:
        row["planted"] = float(np.isin(as_keys(planted[:, planted[1] < rows]), found).mean())
    return {**row, "same twice": str(run["same"]), "load": run["load"]}


def with_ratio(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add how many times our CPU seconds a method took for one row."""
    ours = rows[0]["cpu_s"] / rows[0]["rows"]
    return [{**row, "times ours": row["cpu_s"] / row["rows"] / ours} for row in rows]


def as_keys(pairs: Any) -> Any:
    """Return each pair as one number."""
    return pairs[0].astype(np.uint64) << np.uint64(32) | pairs[1].astype(np.uint64)


def made_texts(path: Path, rows: int) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return texts and which are light edits: (2, m) rows of source and edit."""
    rng = np.random.default_rng(rows)
    prompts = pl.read_parquet(path)["prompt"].unique(maintain_order=True).to_list()
    words = [prompt.split() for prompt in prompts if 8 <= len(prompt.split()) <= 40]
    heads = [" ".join(text[: len(text) // 2]) for text in words]
    tails = [" ".join(text[len(text) // 2 :]) for text in words]
    one, other = (len(words) * rng.random((2, rows)) ** 2).astype(np.int64)
    texts = [f"{heads[i]} {tails[j]}" for i, j in zip(one.tolist(), other.tolist(), strict=True)]
    edits = np.sort(rng.choice(np.arange(1, rows), int(PLANTED * rows), replace=False))
    sources = (edits * rng.random(len(edits))).astype(np.int64)
    for source, edit, kind, where in zip(
        sources.tolist(), edits.tolist(), rng.integers(0, 4, len(edits)).tolist(), rng.random(len(edits)), strict=True
    ):
        parts = texts[source].split()
        place = int(where * len(parts))
        if kind == 0:
            parts[place] = parts[place].upper()
        elif kind == 1:
            parts[place] += ","
        elif kind == 2:
            parts[place] += "s"
        else:
            parts.insert(place, "really")
        texts[edit] = " ".join(parts)
    return texts, np.stack([sources, edits])


@numba.njit(cache=False)
def _every_distance(codes: Any, tau: Any, found: Any) -> int:
    count = 0
    for right in range(len(codes)):
        for left in range(right):
            value, bits = codes[left] ^ codes[right], 0
            while value and bits < tau:
                value &= value - np.uint64(1)
                bits += 1
            if bits < tau:
                found[0, count], found[1, count] = left, right
                count += 1
    return count


def brute_force(codes: Any) -> np.ndarray[Any, Any]:
    """Return all pairs nearer than tau, from every distance."""
    found = np.empty((2, 1 << 24), dtype=np.uint32)
    return found[:, : _every_distance(codes, TAU, found)]


@numba.njit(cache=False)
def _shared(starts: Any, sets: Any, list_starts: Any, lists: Any, threshold: float, found: Any) -> int:
    count, n = 0, len(starts) - 1
    shared = np.zeros(n, dtype=np.int32)
    for right in range(n):
        own = starts[right + 1] - starts[right]
        for shingle in sets[starts[right] : starts[right + 1]]:
            for place in range(list_starts[shingle], list_starts[shingle + 1]):
                left = lists[place]
                if left >= right:
                    break
                shared[left] += 1
        for left in range(right):
            if shared[left]:
                union = own + starts[left + 1] - starts[left] - shared[left]
                if shared[left] >= threshold * union:
                    found[0, count], found[1, count] = left, right
                    count += 1
                shared[left] = 0
    return count


def similar_pairs(texts: list[str]) -> np.ndarray[Any, Any]:
    """Return all pairs with a shingle Jaccard of at least 0.7, from counts of all shared shingles."""
    packed, grams = pack(texts), Features().grams()
    sets = [shingle_set(*packed, row, grams) for row in range(len(texts))]
    starts = np.cumsum([0, *map(len, sets)])
    _, shingles = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(texts)), np.diff(starts))
    order = np.argsort(shingles, kind="stable")
    list_starts = np.concatenate([[0], np.cumsum(np.bincount(shingles))])
    found = np.empty((2, 1 << 25), dtype=np.uint32)
    return found[:, : _shared(starts, shingles, list_starts, rows[order], JACCARD, found)]


if __name__ == "__main__":
    main()
