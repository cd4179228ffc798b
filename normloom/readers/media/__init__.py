"""Images, sound and videos as rows: found, decoded once to prove that they can be, and stored once.

`locate_media` finds the media of a source and digests them, `entries` yields them one at a time, `decode` says what
each is or why it cannot be used, `Pack` stores their bytes and `MediaFolder` gives them back. docs/media.md has the
formats and the rules.
"""

from normloom.readers.media.decode import BadMediaError, Decoded, MediaLimits, at_rate, decode, image_of, waveform
from normloom.readers.media.entries import Entry, entries
from normloom.readers.media.locate import LocatedMedia, locate_media
from normloom.readers.media.pack import MediaFolder, Pack
from normloom.readers.media.video import frames_of

LIBRARIES = ("pillow", "soundfile", "pyarrow", "av")  # whose versions may change what is read

__all__ = [
    "LIBRARIES",
    "BadMediaError",
    "Decoded",
    "Entry",
    "LocatedMedia",
    "MediaFolder",
    "MediaLimits",
    "Pack",
    "at_rate",
    "decode",
    "entries",
    "frames_of",
    "image_of",
    "locate_media",
    "waveform",
]
