"""What companies have between a builder and its sources: a private authority, passwords, closed doors, a proxy."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab.web import PASSWORD, USER, WebServer
from slipway_operator.builder import git, sdists, subversion
from slipway_operator.builder.environment import Environment
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.export import model_image
from slipway_operator.builder.images import client, push_artifact
from slipway_operator.builder.requirements import Requirements, parse
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import GitSource, Interpreter, Registry, SvnSource

from .conftest import Index, add_secret, program, sdist

PYTHON = Interpreter(python="3.11", base=f"base@sha256:{'0' * 64}", tools=f"tools@sha256:{'0' * 64}")


@pytest.fixture(scope="module")
def web(registry) -> Iterator[WebServer]:
    program("/usr/sbin/apache2")
    program("/usr/lib/apache2/modules/mod_dav_svn.so")
    with WebServer("127.0.0.1", registry=registry) as server:
        yield server


@pytest.fixture
def repository(web, origin) -> str:
    """Path of a Git repository that the web server has."""
    origin.write("a.py")
    origin.commit()
    web.add_git(origin.name, origin.bare)
    return f"git/{origin.name}.git"


@pytest.fixture(scope="module")
def models(web, tmp_path_factory) -> str:
    """Path of a Subversion repository that the web server has."""
    tree = tmp_path_factory.mktemp("models")
    (tree / "a.py").write_text("x\n")
    web.add_svn("models", tree)
    return "svn/models"


def trust(web: WebServer, place: Workplace) -> None:
    """As a platform with a caBundle."""
    (place.settings / "ca.crt").write_text(web.authority)


def sign_in(place: Workplace, kind: str, password: str = PASSWORD, **more: str) -> None:
    add_secret(place, kind, username=USER, password=f"{password}\n", **more)


def fetch_git(url: str, place: Workplace) -> list[str]:
    source = GitSource(url=url, ref="main")
    with git.fetched(source, place) as (fetched, commit):
        assert git.resolve(source, place) == commit
        return [file.path for file in fetched.files(commit, ".")]


def fetch_svn(url: str, place: Workplace) -> list[str]:
    commit, made = subversion.write(SvnSource(url=url, path="trunk"), place, place.work / "p.zip")
    assert commit == "r1"
    return list(made.manifest.by_path)


@pytest.fixture(params=["git", "svn"])
def fetch(request, web, repository, models):
    """Fetches by Git or by Subversion from one of the web server's areas."""
    path, do = {"git": (repository, fetch_git), "svn": (models, fetch_svn)}[request.param]
    return lambda area, place: do(web.url(area, path), place)


@pytest.mark.parametrize("by", ["platform", "secret"])
def test_a_source_with_a_certificate_of_a_private_authority(web, fetch, place, by):
    if by == "platform":
        trust(web, place)
    else:
        add_secret(place, "source", ca_dot_crt=web.authority)

    assert fetch("open", place) == ["a.py"]


def test_a_source_whose_authority_nobody_knows_is_refused(fetch, place):
    with pytest.raises(StepFailed) as failed:
        fetch("open", place)

    assert (failed.value.reason, failed.value.retry) == ("SourceNotTrusted", False), failed.value.message
    assert "ca.crt" in failed.value.message


def test_a_certificate_of_another_host_is_refused(web, repository, models, place):
    trust(web, place)
    for fetch, path in ((fetch_git, repository), (fetch_svn, models)):
        with pytest.raises(StepFailed) as failed:
            fetch(web.url("open", path).replace("127.0.0.1", "localhost"), place)

        assert (failed.value.reason, failed.value.retry) == ("SourceNotTrusted", False), failed.value.message
        assert "another host" in failed.value.message


def test_a_private_source_opens_with_its_secret(web, fetch, place):
    sign_in(place, "source", ca_dot_crt=web.authority)

    assert fetch("private", place) == ["a.py"]


@pytest.mark.parametrize(
    ("area", "password"), [("private", None), ("private", "hunter2"), ("closed", None), ("closed", PASSWORD)]
)
def test_a_source_that_one_may_not_read(web, fetch, place, area, password):
    trust(web, place)
    if password is not None:
        sign_in(place, "source", password)

    with pytest.raises(StepFailed) as failed:
        fetch(area, place)

    assert (failed.value.reason, failed.value.retry) == ("SourceAccessDenied", False), failed.value.message
    assert "hunter2" not in failed.value.message


def behind(place: Workplace, proxy: str, **more: str) -> Workplace:
    """As in a Job of a platform with a proxy."""
    variables = {"HTTPS_PROXY": proxy, "https_proxy": proxy, **more}
    return replace(place, variables={**place.variables, **variables})


def test_a_source_behind_a_proxy(web, fetch, place):
    trust(web, place)
    before = len(web.proxied())

    assert fetch("open", behind(place, web.proxy)) == ["a.py"]

    assert any("CONNECT" in line for line in web.proxied()[before:])


def test_a_source_that_is_no_business_of_the_proxy(web, fetch, place, closed_port):
    trust(web, place)
    place = behind(place, f"http://127.0.0.1:{closed_port}", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")

    assert fetch("open", place) == ["a.py"]


def test_a_proxy_that_is_down_is_waited_for(web, fetch, place, closed_port):
    trust(web, place)

    with pytest.raises(StepFailed) as failed:
        fetch("open", behind(place, f"http://127.0.0.1:{closed_port}"))

    assert (failed.value.reason, failed.value.retry) == ("SourceUnavailable", True), failed.value.message


# ---- the package index -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lock(web, tmp_path_factory) -> Requirements:
    """A package with a wheel and one without, both in the web server's index alone."""
    root = tmp_path_factory.mktemp("wheels")
    index = Index(root=root)
    (root / "simple").mkdir()
    index.add_wheel("tiny")
    name = "tiny-1.0-py3-none-any.whl"
    wheel = web.add_file("tiny", name, (root / "simple" / "tiny" / name).read_bytes())
    source = web.add_file("fromsource", "fromsource-2.0.tar.gz", sdist("2.0"))
    return parse(f"tiny==1.0 --hash={wheel}\nfromsource==2.0 --hash={source}\n", "requirements.txt")


def install(index: str, lock: Requirements, place: Workplace) -> set[str]:
    """What `fetch` and `run` of a build do; returns the modules that came of it."""
    # Retries of uv's own would only make the tests slow.
    here = replace(place, variables={**place.variables, "UV_DEFAULT_INDEX": index, "UV_HTTP_RETRIES": "0"})
    environment = Environment(place=here, interpreter=PYTHON)
    environment.create()
    sources = environment.install(lock)
    sdists.download(sources, lock, environment)
    sdists.build(environment)
    return {path.name for path in (environment.root / "lib" / "python3.11" / "site-packages").glob("*.py")}


def test_an_index_that_asks_for_a_password(web, lock, place):
    trust(web, place)
    sign_in(place, "index")

    assert {"tiny.py", "fromsource.py"} <= install(web.url("private", "simple"), lock, place)


@pytest.mark.parametrize(
    ("area", "password"), [("private", None), ("private", "hunter2"), ("closed", None), ("closed", PASSWORD)]
)
def test_an_index_that_one_may_not_read(web, lock, place, area, password):
    trust(web, place)
    if password is not None:
        sign_in(place, "index", password)

    with pytest.raises(StepFailed) as failed:
        install(web.url(area, "simple"), lock, place)

    assert (failed.value.reason, failed.value.retry) == ("IndexAccessDenied", False), failed.value.message
    assert "hunter2" not in failed.value.message


def test_an_index_whose_authority_nobody_knows_is_refused(web, lock, place):
    with pytest.raises(StepFailed) as failed:
        install(web.url("open", "simple"), lock, place)

    assert (failed.value.reason, failed.value.retry) == ("IndexNotTrusted", False), failed.value.message
    assert "caBundle" in failed.value.message


def test_an_index_behind_a_proxy(web, lock, place, monkeypatch):
    trust(web, place)
    sign_in(place, "index")
    before = len(web.proxied())
    # The archives of sources are fetched by this very process, which in a Job has the proxy in its own environment.
    monkeypatch.setenv("https_proxy", web.proxy)

    assert "tiny.py" in install(web.url("private", "simple"), lock, behind(place, web.proxy))

    assert sum("CONNECT" in line for line in web.proxied()[before:]) >= 2


def test_an_index_that_is_down_is_waited_for_and_then_there(web, lock, place):
    trust(web, place)
    web.stop()
    try:
        with pytest.raises(StepFailed) as failed:
            install(web.url("open", "simple"), lock, place)
    finally:
        web.start()

    assert (failed.value.reason, failed.value.retry) == ("IndexUnavailable", True), failed.value.message
    assert "tiny.py" in install(web.url("open", "simple"), lock, place)


def test_a_source_archive_whose_index_goes_away_is_waited_for(web, lock, place):
    """Between the wheels and the archives, too."""
    trust(web, place)
    here = replace(place, variables={**place.variables, "UV_DEFAULT_INDEX": web.url("open", "simple")})
    environment = Environment(place=here, interpreter=PYTHON)
    environment.create()
    sources = environment.install(lock)
    (archive,) = [one for one in lock.packages if one.name == "fromsource"]
    direct = replace(archive, url=web.url("open", "simple/fromsource/fromsource-2.0.tar.gz"))
    web.stop()
    try:
        with pytest.raises(StepFailed) as failed:
            sdists.download(sources, Requirements(packages=(direct,)), environment)
    finally:
        web.start()

    assert (failed.value.reason, failed.value.retry) == ("IndexUnavailable", True), failed.value.message


# ---- the registry ------------------------------------------------------------------------------


def push(web: WebServer, place: Workplace) -> str:
    """Push something as a Job does; returns its digest."""
    platform = Registry(prefix=f"{web.address}:{web.port}/models", insecure=False)
    tree = place.work / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "a").write_text("a")
    return push_artifact(
        client(platform, place),
        model_image(tree, place.work / "layer.tgz"),
        f"{platform.prefix}/a:1",
        place.work / "layout",
    )


def sign_in_to_registry(web: WebServer, place: Workplace, password: str) -> None:
    """As a mounted Secret of type kubernetes.io/dockerconfigjson."""
    token = base64.b64encode(f"{USER}:{password}".encode()).decode()
    text = json.dumps({"auths": {f"{web.address}:{web.port}": {"auth": token}}})
    add_secret(place, "registry", config_dot_json=text)


@pytest.fixture
def trusted(web, place, monkeypatch) -> None:
    """As in a Job of a platform with a caBundle, whose environment crane has."""
    trust(web, place)
    monkeypatch.setenv("SSL_CERT_FILE", str(place.settings / "ca.crt"))


@pytest.mark.usefixtures("trusted")
def test_a_registry_that_asks_for_a_password(web, place):
    sign_in_to_registry(web, place, PASSWORD)

    assert push(web, place).startswith("sha256:")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("password", [None, "hunter2"])
def test_a_registry_that_one_may_not_write_to(web, place, password):
    if password is not None:
        sign_in_to_registry(web, place, password)

    with pytest.raises(StepFailed) as failed:
        push(web, place)

    assert (failed.value.reason, failed.value.retry) == ("RegistryAccessDenied", False), failed.value.message
    assert "hunter2" not in failed.value.message


def test_a_registry_whose_authority_nobody_knows_is_refused(web, place):
    sign_in_to_registry(web, place, PASSWORD)

    with pytest.raises(StepFailed) as failed:
        push(web, place)

    assert (failed.value.reason, failed.value.retry) == ("RegistryNotTrusted", False), failed.value.message
