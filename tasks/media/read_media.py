"""Read images, sound and videos into rows; their bytes are files of the product."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.run import Run
from normloom.core.stage import Output, quarantined, quarantined_frame
from normloom.readers.media import (
    LIBRARIES,
    BadMediaError,
    Decoded,
    Entry,
    LocatedMedia,
    MediaLimits,
    Pack,
    decode,
    entries,
)
from normloom.readers.records import none_usable
from normloom.schemas import tables
from normloom.schemas.media.media_tables import IMAGE, SOUND, VIDEO, media_contract, of_media
from normloom.steps.args import Args
from normloom.steps.step import step

_THREADS = 2  # that decode: image codecs run outside of Python's lock
_AHEAD = 8  # media that are read before the first of them is stored
_TOLD = 100  # media between two reports of progress
_ID_BYTES = 16


class Media(Args):
    """What of each record of a source is kept besides its medium, and which media are refused."""

    keep: tuple[str, ...] = Field((), description="columns of the source to keep; of an archive: suffixes of texts")
    limits: MediaLimits = Field(MediaLimits(), description="sizes beyond which media are quarantined")


@step(
    makes=of_media,
    name="media",
    files="media",
    libraries=(*LIBRARIES, "numpy", "scipy"),
)
def read_media(args: Media, *, source: LocatedMedia, run: Run) -> Output:
    """Return a row for each image, sound or video that can be decoded; others are quarantined by the rule they break.

    Equal bytes are stored once, whatever they are called. Raises SourceError if nothing can be used.
    """
    kept, aside = [], []
    with Pack(run.files) as pack:
        for done, (entry, found) in enumerate(_decoded(source, args), start=1):
            beside = {name: _text(entry.beside.get(name)) for name in args.keep}
            if isinstance(found, BadMediaError):
                told = {"row_id": None, "origin": entry.origin, "name": entry.name, **beside}
                aside.append(quarantined(told, found.rule, f"{entry.origin}: {found}"))
            else:
                kept.append({**media_row(found, pack, origin=entry.origin), **beside})
            if done % _TOLD == 0:
                run.progress(done, 0, media=len(kept), quarantined=len(aside))
    if not kept:
        raise none_usable(source.name, aside, noun="item", expected="images, sounds or videos")
    return media_output(kept, keep=args.keep, aside=aside)


def media_row(found: Decoded, pack: Pack, *, origin: str) -> dict[str, Any]:
    """Store a medium and return its row."""
    media_id = hashlib.blake2b(found.data, digest_size=_ID_BYTES).hexdigest()
    return {
        "media_id": media_id,
        **{name: getattr(found, name) for name in ("kind", "format", "width", "height", "sample_rate", "channels")},
        **{name: getattr(found, name) for name in ("seconds", "normalised", "phash")},
        "origin": origin,
        **pack.add(media_id, found.format, found.data)._asdict(),
    }


def media_output(
    kept: list[dict[str, Any]], *, keep: tuple[str, ...], aside: list[dict[str, str | None]] | None = None
) -> Output:
    """Return what a stage that reads media makes, from its rows."""
    rows = pl.DataFrame(kept, schema=media_contract(keep).columns)
    return Output(
        rows=rows.with_columns(
            parents=pl.lit([], dtype=tables.TEXTS), content=pl.concat_str("origin", "media_id", separator="\x1f")
        ),
        quarantined=quarantined_frame(aside or []),
        attempts=len(kept) + len(aside or []),
    )


def _decoded(source: LocatedMedia, args: Media) -> Iterator[tuple[Entry, Decoded | BadMediaError]]:
    """Yield the media in order, decoded by threads; only a few are in memory."""
    waiting: deque[tuple[Entry, Future[Decoded | BadMediaError]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for entry in entries(source, keep=args.keep, most=args.limits.max_bytes):
            try:
                data = entry.read()
            except BadMediaError as error:
                waiting.append((entry, pool.submit(_same, error)))
            else:
                waiting.append((entry, pool.submit(_tried, data, entry.name, args.limits)))
            if len(waiting) > _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for entry, future in waiting:
            yield entry, future.result()


def _same(error: BadMediaError) -> BadMediaError:
    return error


def _tried(data: bytes, name: str, limits: MediaLimits) -> Decoded | BadMediaError:
    try:
        return decode(data, name, limits)
    except BadMediaError as error:
        return error


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def facts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what people want to know of a medium besides the medium itself."""
    pixels, seconds = f"{row['width']} x {row['height']} pixels", f"{row['seconds'] or 0:.2f} s"
    size = {IMAGE: pixels, SOUND: seconds, VIDEO: f"{pixels}, {seconds}"}[row["kind"]]
    return {"origin": row["origin"], "format": f"{row['format']}, {size}", "media_id": row["media_id"]}
