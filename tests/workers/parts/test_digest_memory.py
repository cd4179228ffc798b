"""A table is digested without a copy of it, however large: what the stages that look at all rows at once need."""

from __future__ import annotations

import subprocess
import sys

import polars as pl

from normloom.workers.parts.reads import digest_of

MEASURE = """
import polars as pl
from normloom.workers.parts.reads import digest_of

def held(name):
    [line] = [one for one in open("/proc/self/status") if one.startswith(name)]
    return int(line.split()[1])

def table(count):
    return pl.select(text=pl.format("what row {} asks for, in a few words", pl.int_range(count)))

digest_of([table(1000)])
for count in (100_000, 800_000):
    rows = table(count).rechunk()
    open("/proc/self/clear_refs", "w").write("5")
    before = held("VmRSS")
    digest_of([rows])
    print((held("VmHWM") - before) / 1024)
"""


def test_a_digest_is_that_of_the_rows_in_order_however_they_lie_in_memory() -> None:
    rows = pl.DataFrame({"row_id": [f"{number:05d}" for number in range(40_000)]})
    assert digest_of([pl.concat([rows[:7], rows[7:]], rechunk=False)]) == digest_of([rows])
    last = rows[:-1].vstack(pl.DataFrame({"row_id": ["x"]}))
    others = (rows[:-1], rows.reverse(), last, rows.rename({"row_id": "id"}), rows.clear())
    assert len({digest_of([one]) for one in (rows, *others)}) == 6


def test_a_digest_of_a_large_table_holds_no_copy_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    small, large = map(float, done.stdout.split())
    assert large < small + 30  # MB; the table is 27 MB larger, and written as one file this grew by 60
