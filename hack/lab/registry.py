"""A registry of one's own beside the cluster's: down until it is started, and one that no node knows."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from lab.git import free_port
from lab.kube import wait_for


class Registry:
    """Docker's registry on one address, over plain HTTP."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder, self._address, self._port = folder, address, free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "config.yml").write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
            f'http: {{addr: "{self.host}", secret: lab}}\n'
        )

    @property
    def host(self) -> str:
        """Address and port."""
        return f"{self._address}:{self._port}"

    def start(self) -> None:
        """Answer from now on."""
        command = ["docker-registry", "serve", str(self._folder / "config.yml")]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, seconds=20, what=f"the registry on {self.host}", every=0.05)

    def stop(self) -> None:
        """End, if it was started."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self._address, self._port)) == 0
