"""Install packages as `pip install` does, but with uv if it is available, which takes a sixth of the time.

Run it with the Python of the virtual environment and the arguments of `pip install`. uv does not read pip's settings,
so they are passed on: both use the same indexes. If uv fails, pip installs.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PIP = (sys.executable, "-m", "pip")
UV = "uv>=0.8"
SETTINGS = {  # pip's name, and uv's with what separates several values there
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
SECTIONS = ("global", "install", ":env:")  # later ones take precedence


def uv_settings(listed: Iterable[str]) -> dict[str, str]:
    """Return uv's environment variables for the lines of `pip config list`.

    pip takes the best version of all its indexes; uv would stop at the first that has the package.
    """
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed:
        name, is_setting, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if is_setting and section in found and key in SETTINGS:
            variable, separator = SETTINGS[key]
            found[section][variable] = separator.join(str(ast.literal_eval(value)).split())
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for section in SECTIONS:
        settings |= found[section]
    return settings


def main(arguments: list[str]) -> int:
    """Install; return the exit status."""
    uv = _uv()
    if uv:
        listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, *arguments]
        if subprocess.run(command, env=uv_settings(listed.splitlines()) | os.environ, check=False).returncode == 0:
            return 0
        print("uv failed; trying pip", file=sys.stderr)
    return subprocess.run([*PIP, "install", "--quiet", "--no-compile", *arguments], check=False).returncode


def _uv() -> str | None:
    """Return the path of uv, which is installed beside Python if it is not on the PATH; None without it."""
    beside = Path(sys.executable).with_name("uv")
    found = shutil.which("uv") or shutil.which(beside)
    if found is None:
        subprocess.run([*PIP, "install", "--quiet", "--no-compile", UV], capture_output=True, check=False)
        found = shutil.which(beside)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
