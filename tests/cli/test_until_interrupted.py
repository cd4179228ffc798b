"""What is served until Ctrl-C, and what an interrupt becomes."""

from __future__ import annotations

import signal
import webbrowser
from io import StringIO

import pytest
from command_line import Command, interrupted
from receivers import free_port
from rich.console import Console

from normloom.cli.interrupt import MESSAGE, InterruptedBuildError, leaving_quietly, terminated


class Browser(webbrowser.BaseBrowser):
    """Notes what it is to open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:  # noqa: ARG002  # as a browser is called
        self.opened.append(url)
        return True


@pytest.mark.usefixtures("toy_store")
def test_a_page_is_opened_and_served(command: Command) -> None:
    browser, port = Browser(), free_port()
    webbrowser.register("test", None, browser, preferred=True)
    with interrupted(f"http://127.0.0.1:{port}/"):
        ran = command("view", "toy", "--table", "echo", "--port", str(port))
    assert ran.code == 130
    assert browser.opened == [ran.out.strip()]
    assert ran.out.startswith(f"http://127.0.0.1:{port}/#token=")
    assert ran.out.strip().endswith("&system=toy&stage=echo")
    assert ran.err.splitlines()[0] == "Ctrl-C ends it"


@pytest.mark.usefixtures("toy_store")
def test_a_page_that_others_reach_comes_with_a_warning(command: Command) -> None:
    port = free_port()
    with interrupted(f"http://127.0.0.1:{port}/"):
        ran = command("view", "--no-open", "--host", "0.0.0.0", "--port", str(port))
    assert ran.err.startswith("0.0.0.0 can be reached by other machines, and the connection is not encrypted\n")


@pytest.mark.usefixtures("toy_store", "found_prefect")
def test_a_store_is_watched(command: Command) -> None:
    port = free_port()
    with interrupted(f"http://127.0.0.1:{port}/metrics"):
        ran = command("watch", "--metrics-port", str(port))
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
