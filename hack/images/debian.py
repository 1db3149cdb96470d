"""Trees for layers from Debian packages: downloaded once, unpacked without their scripts.

mmdebstrap resolves and downloads (with the machine's own apt sources and keys); the trees
are then laid out from exactly the packages that the recipe names, without what only a
person at a prompt or a package manager would use.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from images import recipe

_MERGED = ("bin", "sbin", "lib", "lib64")


def download(packages: Iterable[str], target: Path) -> None:
    """Download packages with all that they depend on into a folder.

    Args:
        packages: Names, as apt knows them.
        target: New folder; appears when it is complete.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        program = _install_mmdebstrap()
    with tempfile.TemporaryDirectory(prefix="slipway-debian-") as scratch:
        root = Path(scratch) / "root"
        command = [program, "--quiet", "--variant=extract", "--skip=cleanup/apt", "--format=directory"]
        command += [f"--include={','.join(sorted(set(packages)))}", '--aptopt=APT::Install-Recommends "false"']
        command += [recipe.SUITE, str(root), *_machine_sources(Path(scratch))]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"mmdebstrap could not download the packages:\n{done.stderr[-2000:]}")
        fresh = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
        for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
            shutil.move(package, fresh / package.name)
        fresh.rename(target)


def found(folder: Path) -> dict[str, Path]:
    """The downloaded packages by name."""
    return {path.name.partition("_")[0]: path for path in sorted(folder.glob("*.deb"))}


def fingerprint(packages: Iterable[Path]) -> str:
    """What decides a tree: names and versions of packages (apt has checked their signatures)."""
    return hashlib.sha256(json.dumps(sorted(path.name for path in packages)).encode()).hexdigest()


def unpack(packages: Iterable[Path], tree: Path) -> None:
    """Lay packages out below ``tree``, with merged ``/usr`` and without what nobody opens there."""
    tree.mkdir(parents=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", str(package), str(tree)], check=True)
    _merge_usr(tree)
    _keep_licences_only(tree)
    for pattern in recipe.UNWANTED:
        for path in tree.glob(pattern):
            _remove(path)
    _keep_git_programs(tree / "usr/lib/git-core")
    for package in packages:
        _record(package, tree / "var/lib/dpkg/status.d")
    _drop_empty(tree)


def finish_base(tree: Path) -> None:
    """Write what maintainer scripts would have: accounts, certificates, links; and mount points."""
    for name in _MERGED:
        (tree / name).symlink_to(f"usr/{name}")
    for folder in ("proc", "sys", "dev", "run", "tmp", "etc/ssl/certs", "usr/lib/ssl", "opt", "var/tmp"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (tree / folder).chmod(0o1777)
    user = recipe.USER
    _write(
        tree / "etc/passwd",
        f"root:x:0:0:root:/root:/nonexistent\nslipway:x:{user}:{user}:Slipway:/tmp:/nonexistent\n",
    )
    _write(tree / "etc/group", f"root:x:0:\nslipway:x:{user}:\n")
    _write(tree / "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")
    authorities = sorted((tree / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    _write(tree / "etc/ssl/certs/ca-certificates.crt", "".join(path.read_text() for path in authorities))
    _remove(tree / "usr/share/ca-certificates")
    (tree / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
    (tree / "usr/lib/ssl/certs").symlink_to("/etc/ssl/certs")
    (tree / "usr/bin/python3").symlink_to(f"python{recipe.PYTHON}")


def _install_mmdebstrap() -> str:
    advice = "The images are made with Debian's tools: install mmdebstrap (apt-get install mmdebstrap), then try again."
    if shutil.which("apt-get") is None:
        sys.exit(advice)
    print("installing mmdebstrap", flush=True)
    done = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"],
        check=False,
        capture_output=True,
        text=True,
    )
    program = shutil.which("mmdebstrap")
    if program is None:
        sys.exit(f"{advice}\n{done.stderr}")
    return program


def _machine_sources(scratch: Path) -> list[str]:
    """The machine's own apt sources for our suite as mmdebstrap's arguments; none: its default."""
    stanzas: list[str] = []
    lines: list[str] = []
    apt = Path("/etc/apt")
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            text = re.sub(r"(?m)^#.*\n", "", path.read_text())
            stanzas += [part.strip() for part in re.split(r"\n\s*\n", text) if _is_ours(part)]
        elif path.suffix == ".list" and path.exists():
            lines += [line for line in path.read_text().splitlines() if re.match(rf"deb .*\s{recipe.SUITE}\S*\s", line)]
    found: list[str] = []
    for name, content in (("machine.sources", "\n\n".join(stanzas)), ("machine.list", "\n".join(lines))):
        if content:
            _write(scratch / name, content + "\n")
            found.append(str(scratch / name))
    return found


def _is_ours(stanza: str) -> bool:
    types = re.search(r"(?m)^Types:.*\bdeb\b", stanza)
    suites = re.search(rf"(?m)^Suites:.*\b{recipe.SUITE}", stanza)
    return bool(types and suites and not re.search(r"(?mi)^Enabled:\s*no", stanza))


def _merge_usr(tree: Path) -> None:
    """Move ``/bin``, ``/lib`` and so on into ``/usr``: a later layer's real folder would hide the base's link."""
    for name in _MERGED:
        source = tree / name
        if source.is_dir() and not source.is_symlink():
            _move_into(source, tree / "usr" / name)


def _move_into(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_dir() and not path.is_symlink():
            _move_into(path, target / path.name)
        else:
            path.rename(target / path.name)
    source.rmdir()


def _keep_licences_only(tree: Path) -> None:
    documents = tree / "usr/share/doc"
    for path in sorted(documents.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.name != "copyright":
            path.unlink()


def _keep_git_programs(folder: Path) -> None:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name not in recipe.GIT_PROGRAMS:
            _remove(path)
    # The package holds the program twice.
    (folder / "git").unlink()
    (folder / "git").symlink_to("../../bin/git")


def _record(package: Path, folder: Path) -> None:
    """Leave the package's control data where vulnerability scanners look for it."""
    folder.mkdir(parents=True, exist_ok=True)
    control = subprocess.run(["dpkg-deb", "--field", str(package)], check=True, capture_output=True, text=True).stdout
    _write(folder / package.name.partition("_")[0], control)


def _drop_empty(tree: Path) -> None:
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
