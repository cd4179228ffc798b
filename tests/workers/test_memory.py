from __future__ import annotations

import subprocess
import sys

from normloom.workers.memory import MemoryUse, memory_use

HOLD = "held = b'x' * 100_000_000; print('ready', flush=True); input()"


def test_a_child_s_memory_counts() -> None:
    before = memory_use()
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdin
        child.stdout.readline()
        during = memory_use()
        child.stdin.write(b"\n")
    assert during.host - before.host > 90_000_000


def test_the_most_of_several() -> None:
    assert MemoryUse.most([MemoryUse(1, 5), MemoryUse(3, 2)]) == MemoryUse(3, 5)
    assert MemoryUse.most([]) == MemoryUse()
