"""What is served until Ctrl-C, and what an interrupt becomes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from io import StringIO
from pathlib import Path

import pytest
from command_line import until_ctrl_c
from receivers import free_port
from rich.console import Console

import normloom as nl
from normloom.cli.interrupt import MESSAGE, InterruptedBuildError, leaving_quietly, terminated


@pytest.mark.usefixtures("toy_store")
def test_a_page_is_opened_and_served(tmp_path: Path) -> None:
    browser, opened, port = tmp_path / "browser", tmp_path / "opened", free_port()
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    asked = ["view", "toy", "--table", "echo", "--port", str(port)]
    ran = until_ctrl_c(f"http://127.0.0.1:{port}/", *asked, BROWSER=f"{browser} %s")
    assert ran.code == 130
    assert opened.read_text() == ran.out
    assert ran.out.startswith(f"http://127.0.0.1:{port}/#token=")
    assert ran.out.endswith("&system=toy&stage=echo\n")
    assert ran.err.splitlines() == ["Ctrl-C ends it"]


@pytest.mark.usefixtures("toy_store")
def test_a_page_that_others_reach_comes_with_a_warning() -> None:
    port = free_port()
    asked = ["view", "--no-open", "--host", "0.0.0.0", "--port", str(port)]
    ran = until_ctrl_c(f"http://127.0.0.1:{port}/", *asked)
    assert ran.err.startswith("0.0.0.0 can be reached by other machines, and the connection is not encrypted\n")


@pytest.mark.usefixtures("toy_store", "found_prefect")
def test_a_store_is_watched() -> None:
    port = free_port()
    ran = until_ctrl_c(f"http://127.0.0.1:{port}/metrics", "watch", "--metrics-port", str(port))
    assert (ran.code, ran.out) == (0, "Ctrl-C stops it.\n")


@pytest.mark.parametrize(
    ("stopped", "code"),
    [(KeyboardInterrupt(), 130), (InterruptedBuildError(signal.SIGTERM), 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupt_is_one_line_and_the_code_that_shells_expect(stopped: KeyboardInterrupt, code: int) -> None:
    console = Console(file=StringIO(), width=200)
    with pytest.raises(SystemExit) as ended, leaving_quietly(console):
        raise stopped
    assert (ended.value.code, console.file.getvalue()) == (code, MESSAGE + "\n")  # type: ignore[attr-defined]  # in memory
    with pytest.raises(SystemExit) as ended:
        terminated(signal.SIGTERM, None)
    assert ended.value.code == 143


SCRIPT = """
import signal, sys, time
from pathlib import Path

import polars as pl

import normloom as nl
import normloom as nl
from normloom.cli.interrupt import GRACE_SECONDS

@nl.step(makes={"prompt": pl.String}, fan_out=nl.each())
def slow(rows: pl.DataFrame) -> pl.DataFrame:
    Path("at work").touch()
    while not Path("interrupted").exists():
        time.sleep(0.01)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # for a second Ctrl-C: the first has come
            Path("interrupted").touch()
    return rows

try:
    nl.build(slow(nl.table([{"prompt": "a"}], name="prompts")), name="toy")
except KeyboardInterrupt:
    print("interrupted")
time.sleep(GRACE_SECONDS + 1)
print(nl.build(slow(nl.table([{"prompt": "a"}], name="prompts")), name="toy").rows.collect().height)
"""


@pytest.mark.usefixtures("found_prefect")
def test_an_interrupted_build_of_a_script_leaves_the_script_alive(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "at work").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert (process.returncode, out) == (0, "interrupted\n1\n")


@pytest.mark.usefixtures("found_prefect")
def test_a_build_runs_in_another_thread(tmp_path: Path) -> None:
    table = nl.table([{"prompt": "a"}], name="prompts")
    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(copy_context().run, nl.build, table, name="toy", store=tmp_path).result()
    assert made.rows.collect().height == 1
