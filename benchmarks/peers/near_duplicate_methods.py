"""One way of finding near-duplicates, in a process of its own: METHOD INPUT OUTPUT RUN prints its figures as JSON.

INPUT is a Parquet file of texts, or a .npy file of 64-bit codes. OUTPUT gets the pairs found, (2, m) with left < right
and sorted, as .npy. Reading the input is not timed, but for `codes`, which never holds all texts. Needs nothing of
ours but for our own methods, so that it runs in any environment.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

TAU, JACCARD, SHINGLE, PERMUTATIONS = 10, 0.7, 4, 128
figures: dict[str, float] = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Keep wall and CPU seconds of a block, threads included."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures[f"{name}_s"] = time.perf_counter() - wall
    figures[f"{name}_cpu_s"] = time.process_time() - cpu


def read_texts(path: Path) -> list[str]:
    """Return the texts."""
    import polars as pl

    texts: list[str] = pl.read_parquet(path)["text"].to_list()
    return texts


def shingles(text: str) -> set[bytes]:
    """Return the runs of four characters, as the peers' examples make them."""
    text = re.sub(r"\s+", " ", text.lower()).strip()
    return {text[k : k + SHINGLE].encode() for k in range(max(len(text) - SHINGLE + 1, 1))}


def normloom_codes(path: Path, output: Path, run: int) -> Any:
    """Make our codes, 50,000 texts at a time, and find all pairs nearer than tau. A later run has one thread."""
    import pyarrow.parquet as pq

    from normloom.features import Features
    from normloom.hamming import close_pairs, core_count, pair_chunks
    from normloom.simhash import fingerprints

    close_pairs(fingerprints([str(n) for n in range(9000)], Features()), TAU)  # compiles, or loads what is compiled
    with timed("fingerprint"):
        batches = pq.ParquetFile(path).iter_batches(50_000, columns=["text"])
        codes = np.concatenate([fingerprints(batch["text"].to_pylist(), Features()) for batch in batches])
    np.save(output.with_suffix(".codes.npy"), codes)
    return _search(codes, lambda codes: pair_chunks(codes, TAU, threads=1 if run else core_count()))


def normloom_search(path: Path, _output: Path, run: int) -> Any:
    """Find all pairs of codes nearer than tau."""
    from normloom.hamming import close_pairs, core_count, pair_chunks

    close_pairs(np.arange(9000, dtype=np.uint64), TAU)
    return _search(np.load(path), lambda codes: pair_chunks(codes, TAU, threads=1 if run else core_count()))


def _search(codes: Any, search: Callable[[Any], Any]) -> Any:
    found = [np.empty((2, 0), dtype=np.uint32)]
    with timed("search"):
        for left, right, _ in search(codes):
            found.append(np.stack([left, right]).astype(np.uint32))
    return np.concatenate(found, axis=1)


def normloom_simhash(path: Path, _output: Path, run: int) -> Any:
    """Find near-duplicate texts: codes nearer than tau, confirmed by shingle Jaccard."""
    from normloom.features import Features
    from normloom.hamming import core_count, pair_chunks
    from normloom.simhash import fingerprints, jaccards, pack

    def find(texts: list[str]) -> Any:
        packed, found = pack(texts), []
        for left, right, _ in pair_chunks(fingerprints(packed, Features()), TAU, threads=1 if run else core_count()):
            same = jaccards(packed, left, right, Features()) >= JACCARD
            found.append(np.stack([left[same], right[same]]))
        return np.concatenate(found, axis=1) if found else np.empty((2, 0), dtype=np.int64)

    find([f"what is {n} and {n * n}" for n in range(9000)])
    texts = read_texts(path)
    with timed("search"):
        return find(texts)


def faiss(path: Path, _output: Path, _run: int) -> Any:
    """Search the codes with `IndexBinaryFlat.range_search`, 4,096 queries at a time."""
    import faiss

    codes = np.load(path)
    data, found = codes.view(np.uint8).reshape(-1, 8), []
    with timed("search"):
        index = faiss.IndexBinaryFlat(64)
        index.add(data)
        for start in range(0, len(codes), 4096):
            limits, _, near = index.range_search(data[start : start + 4096], TAU)  # its radius is strict
            rows = np.repeat(np.arange(start, start + len(limits) - 1), np.diff(limits).astype(np.int64))
            found.append(np.stack([rows, near])[:, rows < near])
    return np.concatenate(found, axis=1)


def datasketch(path: Path, _output: Path, _run: int) -> Any:
    """Find candidates with MinHashLSH at the Jaccard threshold."""
    from datasketch import MinHash, MinHashLSH

    texts, found = read_texts(path), []
    with timed("search"):
        lsh = MinHashLSH(threshold=JACCARD, num_perm=PERMUTATIONS)
        for row, sketch in enumerate(MinHash.generator(map(shingles, texts), num_perm=PERMUTATIONS)):
            found += [(other, row) for other in lsh.query(sketch)]
            lsh.insert(row, sketch, check_duplication=False)
    return np.array(found, dtype=np.int64).reshape(-1, 2).T


def rensa(path: Path, _output: Path, _run: int) -> Any:
    """Find candidates with RMinHashLSH, in bands of four as datasketch would choose near this threshold."""
    from rensa import RMinHash, RMinHashLSH

    texts, found = read_texts(path), []
    with timed("search"):
        lsh = RMinHashLSH(threshold=JACCARD, num_perm=PERMUTATIONS, num_bands=PERMUTATIONS // 4)
        for row, text in enumerate(texts):
            sketch = RMinHash(num_perm=PERMUTATIONS, seed=42)
            sketch.update([shingle.decode() for shingle in shingles(text)])
            found += [(other, row) for other in lsh.query(sketch)]
            lsh.insert(row, sketch)
    return np.array(found, dtype=np.int64).reshape(-1, 2).T


def simhash(path: Path, _output: Path, _run: int) -> Any:
    """Find neighbours with the package's SimhashIndex."""
    from simhash import Simhash, SimhashIndex

    texts, found = read_texts(path), []
    with timed("search"):
        index = SimhashIndex([], k=TAU - 1)
        for row, text in enumerate(texts):
            code = Simhash([shingle.decode() for shingle in shingles(text)])
            found += [(int(other), row) for other in index.get_near_dups(code)]
            index.add(str(row), code)
    return np.array(found, dtype=np.int64).reshape(-1, 2).T


METHODS = {
    "normloom codes": normloom_codes,
    "normloom search": normloom_search,
    "normloom simhash": normloom_simhash,
    "faiss": faiss,
    "datasketch": datasketch,
    "rensa": rensa,
    "simhash": simhash,
}


def main(method: str, source: str, target: str, run: str) -> None:
    """Run a method and print its figures."""
    pairs = METHODS[method](Path(source), Path(target), int(run))
    peak = float(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024
    pairs = pairs[:, np.lexsort(pairs)]
    np.save(target, pairs.astype(np.uint32))
    digest = hashlib.sha256(pairs.astype(np.uint32).tobytes()).hexdigest()
    print(json.dumps({**figures, "peak_mb": peak, "pairs": pairs.shape[1], "digest": digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
