"""An ssh server that lets one key in, to Git and to Subversion repositories of this machine and to nothing else."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.kube import wait_for
from lab.ports import free_port

_ONLY = (
    'restrict,command="case \\"$SSH_ORIGINAL_COMMAND\\" in '
    'svnserve*) exec svnserve -t --read-only ;; *) exec git-shell -c \\"$SSH_ORIGINAL_COMMAND\\" ;; esac" '
)


def keypair(path: Path) -> tuple[str, str]:
    """Make a key; returns its private and its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.read_text(), path.with_suffix(".pub").read_text()


class SshServer:
    """An sshd on one address; a URL is `url` and the path of a repository."""

    def __init__(self, address: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-ssh-")
        self._root = Path(self._folder.name)
        self._address, self._port = address, free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"ssh://{getpass.getuser()}@{address}:{self._port}"
        _, host = keypair(self._root / "host")
        self.key, public = keypair(self._root / "user")
        """The private key that is let in."""
        self.known = f"[{address}]:{self._port} {' '.join(host.split()[:2])}\n"
        """The line for known_hosts."""
        (self._root / "authorized").write_text(_ONLY + public)
        lines = {
            "Port": self._port,
            "ListenAddress": address,
            "HostKey": self._root / "host",
            "AuthorizedKeysFile": self._root / "authorized",
            "AcceptEnv": "GIT_PROTOCOL",
            "PidFile": "none",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "forced-commands-only",
        }
        (self._root / "config").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self._root / "log").open("wb") as log:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self._root / "config")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, seconds=20, what=f"sshd on {self._address}:{self._port}", every=0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
        self._folder.cleanup()

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"sshd did not start: {(self._root / 'log').read_text()[-500:]}")
        with socket.socket() as probe:
            return probe.connect_ex((self._address, self._port)) == 0
