from __future__ import annotations

import os
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest

from normloom.deployments import install

INSTALL = str(Path(install.__file__))


class TestSettings:
    def test_pip_s_indexes_become_uv_s_and_the_environment_holds_over_files(self) -> None:
        listed = [
            ":env:.extra-index-url='https://two.example/simple\nhttps://three.example/simple'",
            "global.extra-index-url='https://one.example/simple'",
            "global.find-links='/wheels /more'",
            "global.index-url='https://index.example/simple'",
            "install.trusted-host='index.example'",
            "download.index-url='https://other.example/simple'",
            "global.no-color='true'",
        ]
        lines = "\n".join(listed).replace("simple\nhttps", "simple\\nhttps").splitlines()
        assert install.uv_settings(lines) == {
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_DEFAULT_INDEX": "https://index.example/simple",
            "UV_EXTRA_INDEX_URL": "https://two.example/simple https://three.example/simple",
            "UV_FIND_LINKS": "/wheels,/more",
            "UV_INSECURE_HOST": "index.example",
        }

    def test_lines_that_are_no_settings_are_passed_over(self) -> None:
        assert install.uv_settings(["", "WARNING: no config"]) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


class TestInstall:
    @pytest.fixture
    def wheels(self, tmp_path: Path) -> Path:
        """A folder with a package of one module."""
        folder = tmp_path / "wheels"
        folder.mkdir()
        info = "tiny_normloom-1.0.dist-info"
        files = {
            "tiny_normloom.py": "WOVEN = 1\n",
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-normloom\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        digests = {name: urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=") for name, text in files.items()}
        record = "".join(f"{name},sha256={digests[name].decode()},{len(text)}\n" for name, text in files.items())
        with ZipFile(folder / "tiny_normloom-1.0-py3-none-any.whl", "w") as wheel:
            for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
                wheel.writestr(name, text)
        return folder

    def run(self, wheels: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
        own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PATH": path}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        command = [sys.executable, INSTALL, *arguments]
        return subprocess.run(command, env=kept | own, capture_output=True, text=True, check=False)

    def test_uv_finds_what_pip_s_settings_name(self, wheels: Path, tmp_path: Path) -> None:
        uv = shutil.which("uv") or shutil.which(Path(sys.executable).with_name("uv"))
        if uv is None:
            pytest.skip("uv is not installed")
        done = self.run(wheels, "--target", str(tmp_path / "out"), "tiny-normloom", path=str(Path(uv).parent))
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "out/tiny_normloom.py").read_text() == "WOVEN = 1\n"
        assert "uv" in (tmp_path / "out/tiny_normloom-1.0.dist-info/INSTALLER").read_text()

    def test_pip_is_asked_if_uv_fails(self, wheels: Path, tmp_path: Path) -> None:
        failing = tmp_path / "bin/uv"
        failing.parent.mkdir()
        failing.write_text("#!/bin/sh\necho no such flag >&2\nexit 2\n")
        failing.chmod(0o755)
        path = f"{failing.parent}:{os.environ['PATH']}"
        done = self.run(wheels, "--target", str(tmp_path / "out"), "tiny-normloom", path=path)
        assert done.returncode == 0
        assert done.stderr.splitlines()[:2] == ["no such flag", "uv failed; trying pip"]
        assert (tmp_path / "out/tiny_normloom.py").exists()

    def test_the_status_is_that_of_pip(self, wheels: Path, tmp_path: Path) -> None:
        done = self.run(wheels, "--target", str(tmp_path / "out"), "none-of-these", path=os.environ["PATH"])
        assert done.returncode != 0
        assert "none-of-these" in done.stderr
