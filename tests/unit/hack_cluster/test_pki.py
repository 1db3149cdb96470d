import subprocess
from pathlib import Path

import pytest

from cluster import pki
from cluster.pki import AUTHORITIES, Leaf, leaves


def text_of(certificate: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(certificate)], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.ensure(folder, "192.0.2.7")
    return folder


@pytest.mark.parametrize("leaf", leaves("192.0.2.7"), ids=lambda leaf: leaf.name)
def test_each_certificate_is_signed_by_its_own_authority(made, leaf):
    command = ["openssl", "verify", "-CAfile", str(made / f"{leaf.authority}.crt"), str(made / f"{leaf.name}.crt")]

    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_client_of_one_authority_is_a_stranger_to_another(made):
    command = ["openssl", "verify", "-CAfile", str(made / "etcd-ca.crt"), str(made / "admin.crt")]

    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_the_api_servers_certificate_names_every_way_to_it(made):
    text = text_of(made / "apiserver.crt")

    for name in ("DNS:kubernetes.default.svc", "IP Address:10.96.0.1", "IP Address:192.0.2.7", "IP Address:127.0.0.1"):
        assert name in text


def test_no_key_can_be_read_by_others(made):
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in made.glob("*.key")} == dict.fromkeys(
        (path.name for path in made.glob("*.key")), "0o0"
    )


def test_a_second_time_makes_nothing(made):
    before = {path: path.read_bytes() for path in made.iterdir()}

    pki.ensure(made, "192.0.2.7")

    assert {path: path.read_bytes() for path in made.iterdir()} == before


def test_another_address_renews_only_the_servers_that_name_it(tmp_path):
    pki.ensure(tmp_path, "192.0.2.7")
    before = {path.stem: path.read_bytes() for path in tmp_path.glob("*.crt")}

    pki.ensure(tmp_path, "192.0.2.8")

    changed = {path.stem for path in tmp_path.glob("*.crt") if path.read_bytes() != before[path.stem]}
    assert changed == {"apiserver", "kubelet-server", "metrics-server"}


def test_a_half_made_certificate_is_made_again(tmp_path):
    pki.ensure(tmp_path, "192.0.2.7")
    (tmp_path / "admin.from").unlink()
    (tmp_path / "admin.crt").write_text("cut sho")

    pki.ensure(tmp_path, "192.0.2.7")

    assert "CN = slipway-admin" in text_of(tmp_path / "admin.crt")


def test_a_client_certificate_cannot_serve():
    assert "serverAuth" not in Leaf(name="x", authority="ca", common_name="x").extensions()


def test_every_leaf_has_an_authority():
    assert {leaf.authority for leaf in leaves("192.0.2.7")} == set(AUTHORITIES)
