"""One way of finding near-duplicates, in a process of its own: METHOD INPUT OUTPUT RUN prints its figures as JSON.

INPUT is a Parquet file of texts, or a .npy file of 64-bit codes. OUTPUT receives the pairs found, two uint32 each,
left < right, as raw bytes. `text-dedup` and `datatrove` give clusters: their pairs join each row to the first of its
cluster. Reading the input is not timed, except for `normloom codes` and `normloom removal`, which never hold all texts
as strings, and text-dedup, which reads its input itself. Only our own methods import Normloom, so the others run in any
environment.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

TAU, JACCARD, SHINGLE, PERMUTATIONS = 10, 0.7, 4, 128
WORDS = 2  # in a shingle of the methods that know words only
Pairs = Any  # (2, m), left < right
figures: dict[str, float] = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Keep wall and CPU seconds of a block, threads and processes that ended included."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield
    figures[f"{name}_s"] = time.perf_counter() - wall
    figures[f"{name}_cpu_s"] = cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return what this process and those it waited for have used."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def read_texts(path: Path) -> list[str]:
    """Return the texts."""
    import polars as pl

    texts: list[str] = pl.read_parquet(path)["text"].to_list()
    return texts


def shingles(text: str) -> set[bytes]:
    """Return the runs of four characters, as the peers' examples make them."""
    text = re.sub(r"\s+", " ", text.lower()).strip()
    return {text[k : k + SHINGLE].encode() for k in range(max(len(text) - SHINGLE + 1, 1))}


def normloom_codes(path: Path, output: Path, run: int) -> Iterator[Pairs]:
    """Make our codes, 50,000 texts at a time, and find all pairs nearer than tau. A later run has one thread."""
    import pyarrow.parquet as pq

    from normloom.near_duplicates.features import Features
    from normloom.near_duplicates.hamming import close_pairs, core_count, pair_chunks
    from normloom.near_duplicates.simhash import fingerprints

    close_pairs(fingerprints([str(n) for n in range(9000)], Features()), TAU)  # compiles, or loads what is compiled
    with timed("fingerprint"):
        batches = pq.ParquetFile(path).iter_batches(50_000, columns=["text"])
        codes = np.concatenate([fingerprints(batch["text"].to_pylist(), Features()) for batch in batches])
    np.save(output.with_suffix(".codes.npy"), codes)
    with timed("search"):
        for left, right, _ in pair_chunks(codes, TAU, threads=1 if run else core_count()):
            yield np.stack([left, right])


def normloom_simhash(path: Path, _output: Path, run: int) -> Iterator[Pairs]:
    """Find near-duplicate texts: codes nearer than tau, confirmed by shingle Jaccard."""
    from normloom.near_duplicates.features import Features
    from normloom.near_duplicates.hamming import core_count, pair_chunks
    from normloom.near_duplicates.simhash import fingerprints, jaccards, pack

    def find(texts: list[str]) -> Any:
        packed, found = pack(texts), []
        for left, right, _ in pair_chunks(fingerprints(packed, Features()), TAU, threads=1 if run else core_count()):
            same = jaccards(packed, left, right, Features()) >= JACCARD
            found.append(np.stack([left[same], right[same]]))
        return np.concatenate(found, axis=1) if found else np.empty((2, 0), dtype=np.int64)

    find([f"what is {n} and {n * n}" for n in [*range(9000), 0]])
    texts = read_texts(path)
    with timed("search"):
        yield find(texts)


def normloom_minhash(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Find the rows that the method `minhash` removes, each with its keeper."""
    from normloom.near_duplicates.features import Features
    from normloom.near_duplicates.simhash import fingerprints, pack
    from normloom.tasks.duplicates.minhash import find_similar

    texts, features = read_texts(path), Features()
    rule = {"features": features, "jaccard": JACCARD, "permutations": PERMUTATIONS, "recall": 0.99}
    find_similar(pack(texts[:9]), fingerprints(texts[:9], features), **rule)
    with timed("search"):
        packed = pack(texts)
        found = find_similar(packed, fingerprints(packed, features), **rule)
    yield found.select("keeper", "index").to_numpy().T


def normloom_removal(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Run the step `duplicates` at its defaults, codes included: the rows removed, each with its keeper."""
    import polars as pl

    from normloom.tasks.duplicates.deduplicate import Deduplication
    from normloom.tasks.duplicates.duplicates import duplicates

    def rows(texts: pl.LazyFrame) -> pl.LazyFrame:
        return texts.with_row_index("row_id").select(pl.col("row_id").cast(pl.String), prompt="text")

    few = pl.LazyFrame({"text": [f"what is {n} and {n * n}" for n in [*range(8999), 0]]})
    duplicates.function(rows(few), Deduplication())  # compiles, or loads what is compiled
    with timed("search"):
        removed = duplicates.function(rows(pl.scan_parquet(path, glob=False)), Deduplication()).rows
    yield removed.select(pl.col("winner", "duplicate_id").cast(pl.UInt32)).to_numpy().T


def faiss(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Search the codes with `IndexBinaryFlat.range_search`, 4,096 queries at a time."""
    import faiss

    codes = np.load(path)
    data = codes.view(np.uint8).reshape(-1, 8)
    with timed("search"):
        index = faiss.IndexBinaryFlat(64)
        index.add(data)
        for start in range(0, len(codes), 4096):
            limits, _, near = index.range_search(data[start : start + 4096], TAU)  # its radius is strict
            rows = np.repeat(np.arange(start, start + len(limits) - 1), np.diff(limits).astype(np.int64))
            yield np.stack([rows, near])[:, rows < near]


def datasketch(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Find candidates with MinHashLSH at the Jaccard threshold."""
    from datasketch import MinHash, MinHashLSH

    texts, found = read_texts(path), []
    with timed("search"):
        lsh = MinHashLSH(threshold=JACCARD, num_perm=PERMUTATIONS)
        for row, sketch in enumerate(MinHash.generator(map(shingles, texts), num_perm=PERMUTATIONS)):
            found += [(other, row) for other in lsh.query(sketch)]
            lsh.insert(row, sketch, check_duplication=False)
    yield np.array(found, dtype=np.int64).reshape(-1, 2).T


def rensa(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
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
    yield np.array(found, dtype=np.int64).reshape(-1, 2).T


def simhash(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Find neighbours with the package's SimhashIndex."""
    from simhash import Simhash, SimhashIndex

    texts, found = read_texts(path), []
    with timed("search"):
        index = SimhashIndex([], k=TAU - 1)
        for row, text in enumerate(texts):
            code = Simhash([shingle.decode() for shingle in shingles(text)])
            found += sorted((int(other), row) for other in index.get_near_dups(code))
            index.add(str(row), code)
    yield np.array(found, dtype=np.int64).reshape(-1, 2).T


def text_dedup(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Cluster the texts with text-dedup's MinHash command."""
    with TemporaryDirectory(prefix="text-dedup-") as folder:
        options = {"path": "parquet", "data_files": path, "split": "train", "column": "text", "num_proc": 2}
        options |= {"output": f"{folder}/out", "cache_dir": f"{folder}/cache", "batch_size": 10_000}
        options |= {"num_perm": PERMUTATIONS, "threshold": JACCARD, "ngram": WORDS, "min_length": 1}
        given = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "text_dedup.minhash", *given, "--hash_func", "xxh3", "--debug"]
        with timed("search"):
            subprocess.run(command, check=True, capture_output=True)
        made = pickle.loads(Path(folder, "out", "uf.pkl").read_bytes())  # noqa: S301 - the command wrote it
    yield _joined([(made.find(row), row) for row in list(made.parent)])


def datatrove(path: Path, _output: Path, _run: int) -> Iterator[Pairs]:
    """Cluster the texts with datatrove's MinHash steps, with its own number of buckets and hashes."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    texts, config = read_texts(path), MinhashConfig(n_grams=WORDS)
    with TemporaryDirectory(prefix="datatrove-") as folder:
        signatures, buckets, clusters = (f"{folder}/{name}" for name in ("signatures", "buckets", "clusters"))
        with timed("search"):
            MinhashDedupSignature(signatures, config).run(Document(text=text, id="") for text in texts)
            for bucket in range(config.num_buckets):
                MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, config.num_buckets)
            MinhashDedupCluster(buckets, clusters, config=config, save_cluster_id=True).run(None)
        made = struct.iter_unpack("<2I", Path(clusters, "000000.clusters").read_bytes())
        yield _joined([(cluster, row) for row, cluster in made])


def _joined(rows: Iterable[tuple[int, int]]) -> Pairs:
    """Return the first row of each cluster with each other of it, from (cluster, row)."""
    first: dict[int, int] = {}
    pairs = [(first.setdefault(cluster, row), row) for cluster, row in sorted(rows, key=lambda pair: pair[1])]
    return np.array([pair for pair in pairs if pair[0] < pair[1]], dtype=np.int64).reshape(-1, 2).T


METHODS = {
    "normloom codes": normloom_codes,
    "normloom simhash": normloom_simhash,
    "normloom minhash": normloom_minhash,
    "normloom removal": normloom_removal,
    "faiss": faiss,
    "datasketch": datasketch,
    "rensa": rensa,
    "simhash": simhash,
    "text-dedup": text_dedup,
    "datatrove": datatrove,
}


def main(method: str, source: str, target: str, run: str) -> None:
    """Run a method and print its figures; pairs go to the file as they come."""
    count, digest = 0, hashlib.sha256()
    with Path(target).open("wb") as file:
        for pairs in METHODS[method](Path(source), Path(target), int(run)):
            found = np.ascontiguousarray(pairs.T, dtype=np.uint32).tobytes()
            file.write(found)
            digest.update(found)
            count += pairs.shape[1]
    own = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    print(json.dumps({**figures, "peak_mb": peak, "pairs": count, "digest": digest.hexdigest()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
