"""Everything that a few fields of an object were, in turn: what a look now and then would miss."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from types import TracebackType
from typing import Self

from lab.kube import Kube, wait_for

Values = tuple[str, ...]


class Watch:
    """Follows fields (kubectl's JSONPath, of one line each) of one object in a thread, until the block ends."""

    def __init__(self, kube: Kube, kind: str, name: str, namespace: str, fields: Values) -> None:
        # No tab: kubectl lines columns up while it watches.
        template = "|".join(f"{{{field}}}" for field in fields) + r'{"\n"}'
        command = [str(kube.kubectl), *(["--context", kube.context] if kube.context else [])]
        command += ["get", kind, name, "-n", namespace, "--watch", "-o", f"jsonpath={template}"]
        self._command, self._environment = command, {**os.environ, "KUBECONFIG": str(kube.kubeconfig)}
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._read)
        self._process: subprocess.Popen[str] | None = None
        self.changes: list[tuple[float, Values]] = []
        """Seconds since the start, and the values from then on."""

    @property
    def values(self) -> list[Values]:
        """What the fields were, in turn."""
        return [values for _, values in self.changes]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.PIPE, text=True)
        self._thread.start()
        wait_for(self._has_begun, seconds=30, what="the first values", every=0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.stdout is None:
            return
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        self._process.stdout.close()

    def _has_begun(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"kubectl ended with {self._process.returncode}: {' '.join(self._command)}")
        return bool(self.changes)

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            values = tuple(line.rstrip("\n").split("|"))
            if not self.changes or self.changes[-1][1] != values:
                self.changes.append((round(time.monotonic() - self._began, 1), values))
