from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from normloom.core.machine.versions import installed_version


def test_a_version_is_that_of_what_is_installed_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(metadata.PackageNotFoundError):
        installed_version("comes-and-goes")
    for number, version in enumerate(("1.0", "2.0"), start=1):
        folder = tmp_path / f"comes_and_goes-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: comes-and-goes\nVersion: {version}\n")
        os.utime(tmp_path, (number, number))  # two changes within a tick of the clock would look like one
        assert installed_version("comes-and-goes") == version
        (folder / "METADATA").unlink()
        folder.rmdir()
    with pytest.raises(metadata.PackageNotFoundError):
        installed_version("comes-and-goes")


def test_it_says_what_importlib_says() -> None:
    assert installed_version("polars") == metadata.version("polars")
