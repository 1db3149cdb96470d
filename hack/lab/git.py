"""Git repositories that pods can reach: a git daemon on this machine's address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.kube import wait_for

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    # A fixed date gives the same commit for the same tree, so a second demo has nothing to build.
    "GIT_AUTHOR_DATE": "2026-11-01T12:00:00Z",
    "GIT_COMMITTER_DATE": "2026-11-01T12:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


@dataclass(frozen=True)
class GitServer:
    """A folder of bare repositories, served read-only by git:// on one address."""

    folder: Path
    address: str
    port: int

    def url(self, name: str) -> str:
        """Return the URL under which pods find a repository."""
        return f"git://{self.address}:{self.port}/{name}.git"

    def start(self) -> None:
        """Serve the folder; a daemon that runs already is left alone."""
        if self.is_running():
            if self._pid() is None:
                raise RuntimeError(
                    f"Port {self.port} of {self.address} is taken by a server of other repositories. "
                    f"End it (`ss -ltnp sport = :{self.port}` names it) and try again."
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        pid_file = self.folder / "daemon.pid"
        pid_file.unlink(missing_ok=True)
        # Detached: it outlives this process, as `make demo` ends before a person has looked around.
        command = ["git", "daemon", "--detach", "--syslog", "--export-all", "--reuseaddr"]
        command += [f"--base-path={self.folder}", f"--listen={self.address}", f"--port={self.port}"]
        subprocess.run([*command, f"--pid-file={pid_file}", str(self.folder)], check=True, stdin=subprocess.DEVNULL)
        wait_for(self.is_running, seconds=10, what=f"git daemon on {self.address}:{self.port}")

    def is_running(self) -> bool:
        """Say whether the port answers."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address, self.port)) == 0

    def stop(self) -> None:
        """End the daemon that `start` began, and nothing else."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        (self.folder / "daemon.pid").unlink(missing_ok=True)

    def _pid(self) -> int | None:
        """Return the process that serves this folder, if there is one."""
        pid_file = self.folder / "daemon.pid"
        if not pid_file.exists():
            return None
        pid = int(pid_file.read_text())
        command_line = Path(f"/proc/{pid}/cmdline")
        serves = command_line.exists() and str(self.folder).encode() in command_line.read_bytes()
        return pid if serves else None

    def publish(
        self, name: str, tree: Path, *, branch: str = "main", tag: str | None = None, message: str = "Release"
    ) -> str:
        """Commit a folder as a repository's newest state and return the commit.

        Files that Git would ignore in the project stay out. A tag that names the
        same files already stays where it is: a release is made once.
        """
        work = self.folder / "work" / name
        bare = self.folder / f"{name}.git"
        if not bare.exists():
            bare.mkdir(parents=True)
            git("init", "--bare", "-q", f"--initial-branch={branch}", cwd=bare)
            git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=bare)
        if not work.exists():
            work.mkdir(parents=True)
            git("init", "-q", f"--initial-branch={branch}", cwd=work)
            git("remote", "add", "origin", str(bare), cwd=work)
        for old in work.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        shutil.copytree(
            tree,
            work,
            dirs_exist_ok=True,
            symlinks=True,
            ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.pyc", ".pytest_cache"),
        )
        git("add", "-A", "--force", cwd=work)
        if tag and _names(tag, git("write-tree", cwd=work), work):
            return git("rev-parse", f"{tag}^{{commit}}", cwd=work)
        if git("status", "--porcelain", cwd=work) or not _has_commit(work):
            git("commit", "-q", "--allow-empty", "-m", message, cwd=work)
        git("push", "-q", "--force", "origin", f"HEAD:{branch}", cwd=work)
        if tag:
            git("tag", "--force", tag, cwd=work)
            git("push", "-q", "--force", "origin", f"refs/tags/{tag}", cwd=work)
        return git("rev-parse", "HEAD", cwd=work)


def git(*arguments: str, cwd: Path) -> str:
    """Run git with a fixed identity and return what it printed."""
    environment = {**os.environ, **_IDENTITY}
    done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _names(tag: str, tree: str, work: Path) -> bool:
    """Say whether a tag is there and its commit holds exactly this tree."""
    asked = ["git", "rev-parse", "-q", "--verify", f"refs/tags/{tag}^{{tree}}"]
    return subprocess.run(asked, cwd=work, capture_output=True, text=True, check=False).stdout.strip() == tree


def _has_commit(work: Path) -> bool:
    done = subprocess.run(["git", "rev-parse", "-q", "--verify", "HEAD"], cwd=work, capture_output=True, check=False)
    return done.returncode == 0
