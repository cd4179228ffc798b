"""What commands say of a system whose first build made no table."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from normloom.cli.app import app
from normloom.core.errors import UsageError
from normloom.history.builds import find_build
from normloom.store.store import Store


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("tables", "toy"), "no tables of toy in "),
        (("quarantine", "toy"), "has no tables of toy yet: run normloom build toy first"),
        (("releases", "toy"), "toy has no recorded versions in "),
        (("trace", "abc123", "--system", "toy"), "no tables of toy in "),
    ],
)
def test_it_is_to_be_built_first(tmp_path: Path, line: tuple[str, ...], said: str) -> None:
    with Store(tmp_path).building("toy"):
        pass
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(app, [*line, "--store", str(tmp_path)], catch_exceptions=False)
    assert said in str(caught.value)
    with pytest.raises(UsageError, match=r"toy has no builds in .* yet: run normloom build toy first"):
        find_build(Store(tmp_path), "previous", system="toy")
