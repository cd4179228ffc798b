"""Machines on this one: network, processes, host name, home and Ray's folders of their own, as containers have them."""

from __future__ import annotations

import os
import random
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

# What a machine has of its own: names, folders, mounts, and a first process that buries the dead.
_BOOT = """
hostname "$1" && mount --bind "$2" /etc/hosts && mkdir -p /tmp/ray || exit 1
mount -t tmpfs none /tmp/ray && mount -t tmpfs none /dev/shm || exit 1
{mounts}
echo ready
sleep infinity & wait
"""
_COMMANDS = ("ip", "nsenter", "setpriv", "unshare")
_AGAIN = 'while :; do "$@"; sleep 1; done'  # whatever it ends with, as a service manager does


class Machines:
    """Machines by name, each with an address that the others know by that name.

    They share the file system, where they see the directories of `mounts` at other places as well.
    """

    def __init__(self, names: Sequence[str], place: Path, mounts: Mapping[Path, Path]) -> None:
        self._token = secrets.token_hex(2)
        self._net = f"10.213.{random.randrange(256)}"
        self._bridge = f"nl{self._token}"
        self._place = place
        self._mounts = mounts
        self._made = [path for path in mounts if not path.exists()]
        self._on: dict[str, subprocess.Popen[bytes]] = {}
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses = {name: f"{self._net}.{number}" for number, name in enumerate(names, start=1)}
        self._hosts = place / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        self._hosts.write_text("\n".join(lines) + "\n")

    def lay(self) -> None:
        """Lay the network; this machine is on it as well."""
        for path in self._made:
            path.mkdir(parents=True)
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
        """Turn all machines off, and remove the network and the places of the mounts."""
        for name in list(self._on):
            self.kill(name)
        for path in self._made:
            path.rmdir()
        for name in self.addresses:
            subprocess.run(["ip", "netns", "del", self._namespace(name)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the service of a machine, and again whenever it ends."""
        self._services[name] = self._begin(name, ["sh", "-c", _AGAIN, "sh", *command], environment)

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a command on a machine to its end."""
        assert self._begin(name, command, environment).wait() == 0, (self._place / f"{name}.log").read_text()

    def restart(self, name: str) -> None:
        """Ask the service of a machine to end; it is started again."""
        [loop] = psutil.Process(self._services[name].pid).children()
        for command in loop.children():
            command.terminate()

    def kill(self, name: str) -> None:
        """Pull the plug of a machine."""
        self._on[name].kill()
        for process in (self._on.pop(name), self._services.pop(name, None)):
            if process:
                process.wait()

    def processes(self, name: str) -> list[psutil.Process]:
        """Return what the service of a machine has started."""
        return psutil.Process(self._services[name].pid).children(recursive=True)

    def root(self, name: str) -> Path:
        """Return the file system as the machine sees it."""
        return Path(f"/proc/{self._first(name).pid}/root")

    def _first(self, name: str) -> psutil.Process:
        """Return a machine's first process."""
        [init] = psutil.Process(self._on[name].pid).children()
        return init

    def _begin(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a command on a machine, which is turned on if it is not."""
        if name not in self._on:
            self._on[name] = self._boot(name)
        enter = [
            "nsenter",
            "--target",
            str(self._first(name).pid),
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--wd=.",
            *command,
        ]
        home = self._place / name
        with (self._place / f"{name}.log").open("ab") as log:
            return subprocess.Popen(enter, cwd=home, env={**environment, "HOME": str(home)}, stdout=log, stderr=log)

    def _boot(self, name: str) -> subprocess.Popen[bytes]:
        (self._place / name).mkdir(exist_ok=True)
        mounts = [f"mount --bind {shlex.quote(str(source))} {path} || exit 1" for path, source in self._mounts.items()]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
        line = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self._namespace(name), *apart]
        line += ["sh", "-c", _BOOT.format(mounts="\n".join(mounts)), "sh", name, str(self._hosts)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE)
        assert process.stdout
        with process.stdout as told:
            assert told.readline() == b"ready\n"
        return process

    def _namespace(self, name: str) -> str:
        return f"{self._bridge}-{name}"


@contextmanager
def machines(names: Sequence[str], place: Path, mounts: Mapping[Path, Path]) -> Iterator[Machines]:
    """Machines for the time of a test, which is skipped if they cannot be had."""
    if os.getuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "setpriv", "unshare"))):
        pytest.skip(
            "machines apart need root, and the commands ip (iproute2), nsenter, setpriv and unshare (util-linux)"
        )
    made = Machines(names, place, mounts)
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
