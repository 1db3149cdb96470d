"""What crane says becomes a reason and a sentence; what it is asked for is a list of arguments."""

import json
import stat
import sys
from pathlib import Path

import pytest

from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.registry import ImageConfig, RegistryClient, failure

DIGEST = "sha256:" + "a" * 64


def client(folder: Path, *, code: int = 0, out: str = DIGEST, err: str = "", **options: object) -> RegistryClient:
    """A crane that writes down its arguments and says what it is told to."""
    program = folder / "crane"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        f"open({str(folder / 'seen.json')!r}, 'w').write(json.dumps([sys.argv[1:], os.environ.get('DOCKER_CONFIG')]))\n"
        f"sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({code})\n"
    )
    program.chmod(stat.S_IRWXU)
    return RegistryClient(program=str(program), **options)  # type: ignore[arg-type]


def seen(folder: Path) -> tuple[list[str], str | None]:
    arguments, config = json.loads((folder / "seen.json").read_text())
    return arguments, config


@pytest.mark.parametrize(
    ("said", "reason", "retry"),
    [
        ("MANIFEST_UNKNOWN: manifest unknown; map[Tag:x]", "ImageNotFound", False),
        ("GET http://r/v2/a/manifests/x: NAME_UNKNOWN: repository name not known to registry", "ImageNotFound", False),
        (
            "HEAD https://r/v2/x: unexpected status code 404 Not Found (HEAD responses have no body)",
            "ImageNotFound",
            False,
        ),
        ("GET https://r/v2/: UNAUTHORIZED: authentication required", "RegistryAccessDenied", False),
        ("PUT https://r: unexpected status code 403 Forbidden: denied", "RegistryAccessDenied", False),
        ('Get "https://r/v2/": dial tcp 10.0.0.1:443: connect: connection refused', "RegistryUnavailable", True),
        ('Get "https://r/v2/": dial tcp: lookup r on 10.0.0.2:53: no such host', "RegistryUnavailable", True),
        ('Get "https://r/v2/": dial tcp 10.0.0.1:443: i/o timeout', "RegistryUnavailable", True),
        ("GET https://r/v2/: unexpected status code 503 Service Unavailable", "RegistryUnavailable", True),
        ("GET https://r/v2/: TOOMANYREQUESTS: slow down", "RegistryUnavailable", True),
        ("PATCH https://r: unexpected EOF", "RegistryUnavailable", True),
        (
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "RegistryNotTrusted",
            False,
        ),
        ("http: server gave HTTP response to HTTPS client", "RegistryNotTrusted", False),
        ("PUT https://r: DIGEST_INVALID: provided digest did not match", "RegistryRefused", False),
        ("", "RegistryRefused", False),
    ],
)
def test_reason(said: str, reason: str, retry: bool) -> None:
    failed = failure("r/a:x", f"2026/11/22 12:00:00 retrying\nError: {said}\n")

    assert (failed.reason, failed.retry) == (reason, retry), failed.message
    assert failed.message.startswith("r/a:x: ")


def test_a_digest_in_an_address_is_not_read_as_a_status() -> None:
    said = f"Error: GET https://r/v2/a/manifests/sha256:{'4' * 30}503{'1' * 31}: MANIFEST_UNKNOWN: manifest unknown"

    assert failure("r/a", said).reason == "ImageNotFound"


@pytest.mark.parametrize("name", ["sp-500", "route-401", "gate-404", "payment-timeout", "x509"])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("GET https://r/v2/{name}/manifests/x: MANIFEST_UNKNOWN: manifest unknown; map[Tag:x]", "ImageNotFound"),
        ("GET https://r/v2/{name}/manifests/x: NAME_UNKNOWN: unknown; map[name:{name}]", "ImageNotFound"),
        ("pulling r/{name}:x: NOT_FOUND: artifact {name}:x not found", "ImageNotFound"),
        ("HEAD https://r/v2/{name}/manifests/x: unexpected status code 404 Not Found (HEAD)", "ImageNotFound"),
        ("GET https://r/v2/{name}/: UNAUTHORIZED: no; [map[Name:{name} Type:repository]]", "RegistryAccessDenied"),
        ('Get "https://r/v2/{name}/": dial tcp 10.0.0.1:443: i/o timeout', "RegistryUnavailable"),
        ("PUT https://r/v2/{name}/: unexpected status code 503 Service Unavailable", "RegistryUnavailable"),
        ("PUT https://r/v2/{name}/: DIGEST_INVALID: digest of {word} did not match", "RegistryRefused"),
    ],
)
def test_a_name_is_not_read_as_what_went_wrong(said: str, reason: str, name: str) -> None:
    """A namespace and a model may be called as people like."""
    text = said.format(name=f"team-403/{name}", word=name)

    assert failure(f"r/team-403/{name}:x", f"Error: {text}").reason == reason


def test_a_failed_call_raises_with_the_reference(tmp_path: Path) -> None:
    crane = client(tmp_path, code=1, err="Error: MANIFEST_UNKNOWN: manifest unknown")

    with pytest.raises(StepFailed, match="ImageNotFound: r/a:x"):
        crane.digest("r/a:x")


@pytest.mark.parametrize(
    ("code", "err", "expected"),
    [(0, "", True), (1, "Error: NAME_UNKNOWN", False)],
)
def test_exists(tmp_path: Path, code: int, err: str, expected: bool) -> None:
    assert client(tmp_path, code=code, err=err).exists("r/a:x") is expected


def test_exists_does_not_take_an_unreachable_registry_for_a_no(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="RegistryUnavailable"):
        client(tmp_path, code=1, err="Error: connection refused").exists("r/a:x")


def test_a_call_that_hangs_is_ended_and_can_be_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "crane"
    program.write_text(f"#!{sys.executable}\nimport signal\nsignal.pause()\n")
    program.chmod(stat.S_IRWXU)

    with pytest.raises(StepFailed, match="no answer") as failed:
        RegistryClient(program=str(program), timeout=0.5).digest("r/a:x")

    assert failed.value.retry


def test_append_is_one_call_that_quotes_what_crane_would_split(tmp_path: Path) -> None:
    config = ImageConfig(
        entrypoint=("/bin/python", "-m", "a,b"),
        user="65532:65532",
        working_directory="/opt/project",
        environment={"B": "2", "A": "1,2"},
        labels={"title": 'says "hi", twice'},
    )

    digest = client(tmp_path, insecure=True).append("r/base@" + DIGEST, [Path("/w/l,1.gz")], "r/x:t", config=config)

    assert digest == DIGEST
    assert seen(tmp_path)[0] == [
        *("mutate", f"r/base@{DIGEST}", "--tag", "r/x:t", '--append="/w/l,1.gz"'),
        *("--entrypoint=/bin/python", "--entrypoint=-m", '--entrypoint="a,b"'),
        *("--user=65532:65532", "--workdir=/opt/project", "--env=A=1,2", "--env=B=2"),
        *('--label="title=says ""hi"", twice"', "--insecure"),
    ]


def test_credentials_are_found_by_folder(tmp_path: Path) -> None:
    client(tmp_path, docker_config=tmp_path).digest("r/a:x")

    assert seen(tmp_path) == (["digest", "r/a:x"], str(tmp_path))


@pytest.mark.parametrize("out", ["[]", "no json", ""])
def test_a_manifest_that_is_no_object_is_refused(tmp_path: Path, out: str) -> None:
    with pytest.raises(StepFailed, match="RegistryRefused"):
        client(tmp_path, out=out).manifest("r/a:x")


def test_no_digest_in_the_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="printed no digest"):
        client(tmp_path, out="").digest("r/a:x")


def test_a_blob_goes_to_a_new_file_only(tmp_path: Path) -> None:
    target = tmp_path / "blob"

    client(tmp_path, out="content").blob_to("r/a@" + DIGEST, target)

    assert target.read_text() == "content"
    with pytest.raises(FileExistsError):
        client(tmp_path, out="content").blob_to("r/a@" + DIGEST, target)
