"""Readers of users' data: files, folders and globs, compressed or remote, as one table with every record accounted for.

`locate` finds the files of a source and digests them, `read_source` reads them. Records are numbered from 1 through all
files; each is a row or is rejected with rule, reason and payload. What was assumed (delimiter, encoding, names) is in
`Source.found`. docs/sources.md lists the formats.
"""

from normloom.readers.column import as_text
from normloom.readers.locate import Located, absolute, locate
from normloom.readers.options import ReadOptions
from normloom.readers.read import READERS, column_names, holding, read_source
from normloom.readers.records import Rejected, Source
from normloom.readers.wanted import Keep

LIBRARIES = ("pyarrow", "python-calamine")  # whose versions may change what is read, with polars, that all stages use

__all__ = [
    "LIBRARIES",
    "READERS",
    "Keep",
    "Located",
    "ReadOptions",
    "Rejected",
    "Source",
    "absolute",
    "as_text",
    "column_names",
    "holding",
    "locate",
]
__all__ += ["read_source"]
