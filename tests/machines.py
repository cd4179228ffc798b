"""Machines on this one: network, processes, host name and Ray's folders of their own, as containers have them."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

# What a container runtime does: names, private folders, and restarts of what ends with an error.
_INIT = """
hostname "$1" && mount --bind "$2" /etc/hosts && mkdir -p /tmp/ray || exit 1
mount -t tmpfs none /tmp/ray && mount -t tmpfs none /dev/shm || exit 1
shift 2
while ! "$@"; do sleep 1; done
"""


class Machines:
    """Machines by name, each with an address that the others know by that name; they share the file system."""

    def __init__(self, names: Sequence[str], place: Path) -> None:
        self._token = secrets.token_hex(2)
        self._net = f"10.213.{random.randrange(256)}"
        self._bridge = f"nl{self._token}"
        self._place = place
        self.addresses = {name: f"{self._net}.{number}" for number, name in enumerate(names, start=1)}
        self._hosts = place / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        self._hosts.write_text("\n".join(lines) + "\n")

    def lay(self) -> None:
        """Lay the network; this machine is on it as well."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._net}.254/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, (name, address) in enumerate(self.addresses.items()):
            inside, outside = self._namespace(name), f"{self._bridge}v{number}"
            _ip("netns", "add", inside)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("link", "set", outside, "master", self._bridge, "up")
            _ip("-n", inside, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", inside, "link", "set", "eth0", "up")
            _ip("-n", inside, "link", "set", "lo", "up")
            _ip("-n", inside, "route", "add", "default", "via", f"{self._net}.254")

    def remove(self) -> None:
        """Remove the network."""
        for name in self.addresses:
            subprocess.run(["ip", "netns", "del", self._namespace(name)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)

    @contextmanager
    def running(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service on a machine, started again whenever it fails; ending the process ends all it started."""
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
        line = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self._namespace(name), *apart]
        line += ["sh", "-c", _INIT, "sh", name, str(self._hosts), *command]
        with (self._place / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(line, cwd=self._place, env=dict(environment), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _namespace(self, name: str) -> str:
        return f"{self._bridge}-{name}"


@contextmanager
def machines(names: Sequence[str], place: Path) -> Iterator[Machines]:
    """Machines for the time of a test, which is skipped if they cannot be had."""
    if os.getuid() != 0 or not all(map(shutil.which, ("ip", "setpriv", "unshare"))):
        pytest.skip("machines apart need root, and the commands ip (iproute2), setpriv and unshare (util-linux)")
    made = Machines(names, place)
    try:
        try:
            made.lay()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"a network of its own cannot be laid here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.remove()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
