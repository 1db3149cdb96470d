"""Credentials of sources: from a mounted Secret to a program, by files and prompts only.

Nothing secret is ever an argument or part of a URL, where ``ps``, logs and error texts
would show it. git asks a helper; the helper answers for one host only, so that a server
that redirects elsewhere learns nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.sources import Address, SourceReason
from slipway_operator.builder.workplace import Workplace

_ASKPASS = '''#!{python} -IS
"""Answers git's questions for {location} from files; silent on all others."""
import os, sys
prompt = sys.argv[1] if len(sys.argv) > 1 else ""
quoted = prompt[prompt.find("'") + 1 : prompt.rfind("'")]
scheme, _, rest = quoted.partition("://")
host = rest.split("/")[0].rpartition("@")[2].lower()
if scheme.lower() + "://" + host != {location!r}:
    sys.exit(1)
name = "username" if prompt.startswith("Username") else "password"
with open(os.path.join({folder!r}, name), encoding="utf-8") as file:
    print(file.read().rstrip("\\r\\n"))
'''

_SSH = '''#!{python} -IS
"""Starts ssh with our key, the Secret's host keys, and no file of the machine's own."""
import os, sys
command = {command!r}
words = sys.argv[1:]
if words[1:] == ["svnserve", "-t"]:
    # Subversion hands over user@host:port as one word, and ssh takes that apart in a URL only.
    words[0] = "ssh://" + words[0]
os.execvp(command[0], command + words)
'''


@contextmanager
def git_access(where: Address, place: Workplace, private: Path) -> Iterator[dict[str, str]]:
    """Environment variables with which git reaches one address.

    Args:
        where: The repository.
        place: Its Secret, if there is one, is ``source``.
        private: A folder for helper files, that goes away afterwards.

    Raises:
        StepFailed: The Secret does not fit the address.
    """
    variables = place.base_variables(private) | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    if where.scheme == "ssh":
        yield variables | ssh_variables(place, private)
        return
    authorities = place.secret("source", "ca.crt") or place.authorities or variables.get("SSL_CERT_FILE")
    if authorities is not None:
        variables["GIT_SSL_CAINFO"] = os.fspath(authorities)
    folder = place.secrets / "source"
    if (folder / "password").is_file():
        if where.scheme == "git":
            raise StepFailed(
                SourceReason.INVALID, "git:// knows no passwords: use https:// or ssh://, or name no secretName"
            )
        helper = private / "askpass"
        text = _ASKPASS.format(python=sys.executable, location=where.location, folder=os.fspath(folder))
        helper.write_text(text, "utf-8")
        helper.chmod(0o700)
        variables["GIT_ASKPASS"] = os.fspath(helper)
    yield variables


def ssh_variables(place: Workplace, private: Path) -> dict[str, str]:
    """How git and svn start ssh: our key, the Secret's host keys, no file of the machine's own."""
    key = place.secret("source", "ssh-privatekey")
    if key is None:
        raise StepFailed(
            SourceReason.ACCESS_DENIED,
            "ssh needs a key: name a Secret of type kubernetes.io/ssh-auth with known_hosts in the source's secretName",
        )
    known = place.secret("source", "known_hosts")
    if known is None:
        raise StepFailed(
            SourceReason.HOST_KEY_MISSING,
            "the source's Secret has no key known_hosts: add the line of `ssh-keyscan HOST`, "
            "compared with what the server's operator publishes",
        )
    # ssh refuses a key that others could read, as a mounted Secret's files may be.
    copy = private / "key"
    copy.touch(mode=0o600)
    copy.write_bytes(key.read_bytes().rstrip() + b"\n")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": os.fspath(known),
        "GlobalKnownHostsFile": os.devnull,
        "IdentitiesOnly": "yes",
        "IdentityFile": os.fspath(copy),
        "ConnectTimeout": "20",
        "ServerAliveInterval": "15",
        "ForwardAgent": "no",
        "UpdateHostKeys": "no",
    }
    command = [
        "ssh",
        "-F",
        os.devnull,
        *(part for name, value in options.items() for part in ("-o", f"{name}={value}")),
    ]
    # A program of ours rather than a command line: the image has no shell that could take it apart.
    helper = private / "ssh"
    helper.write_text(_SSH.format(python=sys.executable, command=command), "utf-8")
    helper.chmod(0o700)
    return {"GIT_SSH": os.fspath(helper), "GIT_SSH_VARIANT": "ssh"}
