"""Addresses that are fit for a program, and what the programs' words mean."""

import json
import subprocess
from dataclasses import replace

import pytest

from slipway_operator.builder import git, subversion
from slipway_operator.builder.credentials import ssh_variables
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Said
from slipway_operator.builder.sources import address, folder_in_repository, named


def said(errors: str) -> Said:
    return Said(code=128, out=b"", errors=errors)


@pytest.mark.parametrize(
    ("errors", "reason", "retry"),
    [
        pytest.param(
            "fatal: unable to access 'https://g.test/x/': Could not resolve host: g.test",
            "SourceHostUnknown",
            False,
            id="https-no-host",
        ),
        pytest.param(
            "fatal: unable to look up g.test (port 9418) (Name or service not known)",
            "SourceHostUnknown",
            False,
            id="git-no-host",
        ),
        pytest.param(
            "ssh: Could not resolve hostname g.test: Name or service not known\n"
            "fatal: Could not read from remote repository.",
            "SourceHostUnknown",
            False,
            id="ssh-no-host",
        ),
        pytest.param(
            "No ED25519 host key is known for g.test and you have requested strict checking.\n"
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            "HostKeyMissing",
            False,
            id="ssh-host-key",
        ),
        pytest.param(
            "git@g.test: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            "SourceAccessDenied",
            False,
            id="ssh-key-refused",
        ),
        pytest.param(
            "fatal: Authentication failed for 'https://g.test/x/'", "SourceAccessDenied", False, id="https-password"
        ),
        pytest.param(
            "fatal: could not read Username for 'https://g.test': terminal prompts disabled",
            "SourceAccessDenied",
            False,
            id="https-no-password",
        ),
        pytest.param(
            "remote: Repository not found.\nfatal: repository 'https://g.test/x/' not found",
            "RepositoryNotFound",
            False,
            id="https-no-repository",
        ),
        pytest.param(
            "fatal: remote error: access denied or repository not exported: /x",
            "RepositoryNotFound",
            False,
            id="git-no-repository",
        ),
        pytest.param(
            "fatal: '/srv/x' does not appear to be a git repository",
            "RepositoryNotFound",
            False,
            id="ssh-no-repository",
        ),
        pytest.param("fatal: couldn't find remote ref nope", "RefNotFound", False, id="no-branch"),
        pytest.param("fatal: remote error: upload-pack: not our ref 0001", "RefNotFound", False, id="no-commit"),
        pytest.param(
            "fatal: unable to access 'https://g.test/x/': server certificate verification failed. CAfile: none",
            "SourceNotTrusted",
            False,
            id="certificate",
        ),
        pytest.param(
            "fatal: unable to access 'http://g.test/x/': Failed to connect to g.test port 80: Connection refused",
            "SourceUnavailable",
            True,
            id="refused",
        ),
        pytest.param(
            "error: RPC failed; curl 56 Recv failure: Connection reset by peer\nfatal: early EOF",
            "SourceUnavailable",
            True,
            id="reset",
        ),
        pytest.param(
            "fatal: unable to access 'https://g.test/x/': The requested URL returned error: 503",
            "SourceUnavailable",
            True,
            id="503",
        ),
        pytest.param("fatal: write error: No space left on device", "RepositoryTooLarge", False, id="disk-full"),
        pytest.param("fatal: transport 'file' not allowed", "InvalidSource", False, id="protocol"),
        pytest.param("fatal: something new", "SourceRefused", False, id="anything-else"),
        pytest.param("", "SourceRefused", False, id="silence"),
    ],
)
def test_what_git_says(errors, reason, retry):
    failed = named(git.FAULTS, said(errors), "https://g.test/x")

    assert (failed.reason, failed.retry) == (reason, retry), failed.message
    assert failed.message.startswith("https://g.test/x: ")


@pytest.mark.parametrize(
    ("errors", "reason", "retry"),
    [
        pytest.param(
            "svn: E170013: Unable to connect to a repository at URL 'svn://s.test/x'\n"
            "svn: E670002: Unknown hostname 's.test'",
            "SourceHostUnknown",
            False,
            id="no-host",
        ),
        pytest.param(
            "svn: E170013: Unable to connect to a repository at URL 'svn://s.test/x'\n"
            "svn: E000111: Can't connect to host 's.test': Connection refused",
            "SourceUnavailable",
            True,
            id="refused",
        ),
        pytest.param(
            "svn: E170013: Unable to connect to a repository at URL 'https://s.test/x'\n"
            "svn: E230001: Server SSL certificate verification failed: issuer is not trusted",
            "SourceNotTrusted",
            False,
            id="certificate",
        ),
        pytest.param("svn: E170001: Authentication failed", "SourceAccessDenied", False, id="password"),
        pytest.param("svn: E175013: Access to '/svn/x' forbidden", "SourceAccessDenied", False, id="http-forbidden"),
        pytest.param("svn: E160006: No such revision 99", "RefNotFound", False, id="no-revision"),
        pytest.param("svn: E160013: '/svn/x' path not found", "PathNotFound", False, id="no-path"),
        pytest.param(
            "svn: E170000: URL 'svn://s.test/x' non-existent in revision 2", "PathNotFound", False, id="not-then"
        ),
        pytest.param("svn: E210005: No repository found in 'svn://s.test/x'", "RepositoryNotFound", False, id="none"),
        pytest.param("svn: E999999: something new", "SourceRefused", False, id="anything-else"),
    ],
)
def test_what_svn_says(errors, reason, retry):
    failed = named(subversion.FAULTS, said(errors), "svn://s.test/x")

    assert (failed.reason, failed.retry) == (reason, retry), failed.message


def test_a_program_that_took_too_long_is_tried_again():
    failed = named(git.FAULTS, replace(said("fatal: couldn't find remote ref x"), timed_out=True), "https://g.test/x")

    assert (failed.reason, failed.retry) == ("SourceUnavailable", True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=touch",
        "file:///etc",
        "/etc",
        "../other",
        "ext::sh -c touch",
        "http::https://g.test/x",
        "https://",
        "https:///x",
        "https://-oProxyCommand=touch/x",
        "https://user:password@g.test/x",
        "https://g.test/x y",
        "https://g.test/x\ny",
        "git@-oProxyCommand:x",
        "https://g.test:port/x",
        "https://" + "x" * 2100,
    ],
)
def test_an_address_that_a_program_could_take_for_something_else_is_refused(url):
    with pytest.raises(StepFailed, match="InvalidSource"):
        address(url, git.SCHEMES)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://G.test/x.git", "https://g.test"),
        ("https://user@g.test:8443/x", "https://g.test:8443"),
        ("ssh://git@g.test/x", "ssh://g.test"),
        ("git@g.test:airline/x.git", "ssh://g.test"),
        ("git://[::1]:9418/x", "git://[::1]:9418"),
    ],
)
def test_an_address_is_taken_apart(url, location):
    assert address(url, git.SCHEMES).location == location


def test_subversion_knows_no_short_ssh_addresses():
    with pytest.raises(StepFailed, match="InvalidSource"):
        address("git@g.test:x", subversion.SCHEMES)


@pytest.mark.parametrize(("path", "short"), [(".", "."), ("./", "."), ("a/", "a"), ("./a/b", "a/b"), ("a/./b", "a/b")])
def test_a_folder_has_one_form(path, short):
    assert folder_in_repository(path) == short


@pytest.mark.parametrize("path", ["..", "a/../..", "/etc", "a//b", "-x", "a\\b", "a\nb"])
def test_a_folder_outside_is_refused(path):
    with pytest.raises(StepFailed, match="UnsafePath"):
        folder_in_repository(path)


def test_ssh_gets_the_secrets_key_and_host_keys_and_nothing_else(place, secret, fake_program, tmp_path):
    fake_program("ssh", "import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    secret(ssh_privatekey="KEY", known_hosts="g.test ssh-ed25519 AAAA")
    private = tmp_path / "private"
    private.mkdir()

    helper = ssh_variables(place, private)["GIT_SSH"]
    done = subprocess.run([helper, "git@g.test", "git-upload-pack 'x'"], check=True, capture_output=True)

    words = json.loads(done.stdout)
    assert words[-2:] == ["git@g.test", "git-upload-pack 'x'"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"} <= set(words)
    assert (private / "key").read_text() == "KEY\n"
    assert (private / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        pytest.param({}, "SourceAccessDenied", id="no-key"),
        pytest.param({"ssh_privatekey": "KEY"}, "HostKeyMissing", id="no-host-key"),
    ],
)
def test_ssh_without_its_secret_says_what_is_missing(keys, reason, place, secret, tmp_path):
    secret(**keys)

    with pytest.raises(StepFailed, match=reason):
        ssh_variables(place, tmp_path)
