"""Near-duplicates: our exact search against faiss, and our path from texts to pairs against MinHash libraries.

Texts are made of halves of real prompts (`--prompts`: a Parquet file with a column `prompt`): the first half of one
and the second of another, earlier ones drawn more often, so that bands are skewed and clusters dense. One in twenty is
a light edit of an earlier text. Each method runs in a process of its own, twice (faiss once); our second run has one
thread. `--peers` names the Python of an environment with faiss-cpu, datasketch, rensa and simhash; `--text-dedup` and
`--datatrove` each need an environment of their own, since their dependencies conflict.

Oracles: the distances of all pairs of codes (up to 100,000; faiss beyond that); the Jaccard similarities of all pairs
of texts, counted shingle by shingle. `recall` and `precision` are over pairs; `planted` is the share of light edits
found with their source. text-dedup and datatrove give clusters: recall and `planted` count pairs within a cluster, and
precision is the share of removed rows that have an earlier similar row. The last table compares the rows that our
method `minhash` removes with those of the exact rule.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numba
import numpy as np
import polars as pl
from common import Report, parser

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.kernels.texts import shingle_set
from normloom.near_duplicates.simhash import pack

SCRIPT = Path(__file__).parent / "peers" / "near_duplicate_methods.py"
CLUSTERING = ("text-dedup", "datatrove")
TAU, JACCARD = 10, 0.7
PLANTED = 0.05
ORACLE_ROWS, FAISS_ROWS = 100_000, 400_000
FEW_ROWS = 2_000  # for the package simhash, which is quadratic in Python

HIGH, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
Figures = dict[str, Any]
Pairs = np.ndarray[Any, Any]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--prompts", type=Path, required=True)
    arguments.add_argument("--rows", type=int, nargs="+", default=[100_000])
    arguments.add_argument("--peers", help="the Python of the peers' environment; without it they are skipped")
    arguments.add_argument("--text-dedup", help="the Python of its environment")
    arguments.add_argument("--datatrove", help="the Python of its environment")
    arguments.add_argument(
        "--peer-runs", type=int, choices=(1, 2), default=2, help="of all but faiss; two are compared"
    )
    given = arguments.parse_args()
    pythons = {"text-dedup": given.text_dedup, "datatrove": given.datatrove}
    pythons |= dict.fromkeys(("faiss", "rensa", "datasketch", "simhash"), given.peers)
    pythons = {name: python for name, python in pythons.items() if python}
    report = Report(given.json)
    for rows in given.rows:
        with TemporaryDirectory(prefix="normloom-bench-") as folder:
            measure(Path(folder), rows, given.prompts, pythons, given.peer_runs, report)
    report.end()


def measure(folder: Path, rows: int, prompts: Path, pythons: dict[str, str], peer_runs: int, report: Report) -> None:
    """Run the methods that can do as many texts and add their tables."""
    texts, planted = made_texts(prompts, rows)
    source = folder / "texts.parquet"
    pl.DataFrame({"text": texts}).write_parquet(source, row_group_size=50_000)
    by_jaccard = similar_pairs(texts) if rows <= ORACLE_ROWS else None
    del texts

    def run(method: str, path: Path = source, times: int = 2) -> Figures:
        report.note(f"{method}, {rows:,} texts")
        return measured(method, path, folder, pythons.get(method, sys.executable), times)

    exact = [run("normloom codes")]
    codes = folder / "normloom codes.0.codes.npy"
    truth = brute_force(np.load(codes)) if rows <= ORACLE_ROWS else None
    if "faiss" in pythons and rows <= FAISS_ROWS:
        exact.append(run("faiss", codes, 1))
        truth = as_keys(exact[1]["file"]) if truth is None else truth
    report.add(
        f"{rows:,} texts: all pairs of codes nearer than {TAU}",
        with_ratio([row_of(figures, rows) | quality(figures, truth) | last_of(figures) for figures in exact]),
    )
    made = {name: value for name, value in exact[0].items() if name.startswith("fingerprint")}
    report.add(f"{rows:,} texts: making the codes", [made])
    whole = run("normloom removal", times=1)
    report.add(f"{rows:,} texts: rows that the step `duplicates` finds", [row_of(whole, rows) | last_of(whole)])
    if by_jaccard is None:
        return
    similar = []
    for method in ("normloom simhash", *(name for name in pythons if name != "faiss")):
        size = rows if method != "simhash" else min(rows, FEW_ROWS)
        path = source if size == rows else folder / "few.parquet"
        if size < rows:
            pl.read_parquet(source).head(size).write_parquet(path)
        figures = run(method, path, peer_runs if method in pythons else 2)
        among, edits = by_jaccard[by_jaccard & LOW < size], as_keys(planted)[planted[1] < size]
        judge = clustering_quality if method in CLUSTERING else quality
        similar.append(row_of(figures, size) | judge(figures, among, edits) | last_of(figures))
    report.add(f"{rows:,} texts: near-duplicates with a shingle Jaccard of {JACCARD} or more", with_ratio(similar))
    removing = run("normloom minhash")
    found, wanted = as_keys(removing["file"]) & LOW, removed_rows(by_jaccard)
    shared = np.intersect1d(found, wanted).size
    removal = {"exact rule removes": wanted.size, "recall": shared / wanted.size, "precision": shared / found.size}
    report.add(f"{rows:,} texts: rows removed by `minhash`", [row_of(removing, rows) | removal | last_of(removing)])


def measured(method: str, source: Path, folder: Path, python: str, times: int) -> Figures:
    """Run a method and return the first run's figures, with whether all runs found the same."""
    runs = []
    for run in range(times):
        target = folder / f"{method}.{run}.npy"
        command = [python, str(SCRIPT), method, str(source), str(target), str(run)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{method} failed:\n{done.stderr[-3000:]}")
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    same = "not tried" if times == 1 else "yes" if runs[0]["digest"] == runs[1]["digest"] else "no"
    last = {"cpu_s_again": runs[-1]["search_cpu_s"] if times > 1 else None, "same_twice": same}
    return {"method": method, "file": folder / f"{method}.0.npy", **runs[0], **last, "load": os.getloadavg()[0]}


def row_of(figures: Figures, rows: int) -> Figures:
    """Return the first columns of a table."""
    return {
        "method": figures["method"],
        "rows": rows,
        "wall_s": figures["search_s"],
        "cpu_s": figures["search_cpu_s"],
        "cpu_s_again": figures["cpu_s_again"],
        "peak_mb": figures["peak_mb"],
        "pairs": figures["pairs"],
    }


def last_of(figures: Figures) -> Figures:
    """Return the last columns of a table."""
    return {"same twice": figures["same_twice"], "load": figures["load"]}


def quality(figures: Figures, truth: Pairs | None, planted: Pairs | None = None) -> Figures:
    """Return recall and precision over pairs, and the share of the planted pairs that were found."""
    if truth is None:
        return {"recall": None, "precision": None}
    found = as_keys(figures["file"])
    shared = np.intersect1d(found, truth).size
    made = {"recall": shared / max(truth.size, 1), "precision": shared / max(found.size, 1)}
    return made if planted is None else {**made, "planted": float(np.isin(planted, found).mean())}


def clustering_quality(figures: Figures, truth: Pairs, planted: Pairs) -> Figures:
    """Return what `quality` does of clusters, given as pairs of the first row and another."""
    found = as_keys(figures["file"])
    cluster = np.arange(max(int((keys & LOW).max(initial=0)) for keys in (found, truth, planted)) + 1)
    cluster[found & LOW] = found >> HIGH

    def together(keys: Pairs) -> float:
        return float((cluster[keys >> HIGH] == cluster[keys & LOW]).mean())

    return {
        "recall": together(truth),
        "precision": float(np.isin(found & LOW, truth & LOW).mean()),
        "planted": together(planted),
    }


def with_ratio(rows: list[Figures]) -> list[Figures]:
    """Add how many times our CPU seconds a method took for one row."""
    ours = rows[0]["cpu_s"] / rows[0]["rows"]
    return [{**row, "times ours": row["cpu_s"] / row["rows"] / ours} for row in rows]


def as_keys(pairs: Pairs | Path) -> Pairs:
    """Return each pair, a column or one in the file of a method, as one number."""
    left, right = np.fromfile(pairs, dtype=np.uint32).reshape(-1, 2).T if isinstance(pairs, Path) else pairs
    keys: Pairs = left.astype(np.uint64) << HIGH | right.astype(np.uint64)
    return keys


def made_texts(path: Path, rows: int) -> tuple[list[str], Pairs]:
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


def removed_rows(keys: Pairs) -> Pairs:
    """Return the rows that have an earlier one among these pairs which is not itself removed."""
    removed: set[int] = set()
    for right, left in sorted(zip((keys & LOW).tolist(), (keys >> HIGH).tolist(), strict=True)):
        if left not in removed:
            removed.add(right)
    return np.array(sorted(removed), dtype=np.uint64)


def brute_force(codes: Any) -> Pairs:
    """Return all pairs nearer than tau as keys, from every distance."""
    found = np.empty((2, 1 << 24), dtype=np.uint32)
    return as_keys(found[:, : _every_distance(codes, TAU, found)])


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


def similar_pairs(texts: list[str]) -> Pairs:
    """Return all pairs with a shingle Jaccard of at least 0.7 as keys, from counts of all shared shingles."""
    packed, grams = pack(texts), Features().grams()
    sets = [shingle_set(*packed, row, grams) for row in range(len(texts))]
    starts = np.cumsum([0, *map(len, sets)])
    _, shingles = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(texts)), np.diff(starts))
    order = np.argsort(shingles, kind="stable")
    list_starts = np.concatenate([[0], np.cumsum(np.bincount(shingles))])
    found = np.empty((2, 1 << 25), dtype=np.uint32)
    return as_keys(found[:, : _shared(starts, shingles, list_starts, rows[order], JACCARD, found)])


if __name__ == "__main__":
    main()
