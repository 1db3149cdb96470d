"""Keys and certificates of the cluster, made by the openssl command and renewed before they end.

One authority for clients and servers, one for the aggregation layer and one for etcd, as the Kubernetes
documentation asks for, so that a certificate of one never opens another.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import API_SERVICE_IP, NODE
from tools.refusal import Refused

RENEW_SECONDS = 30 * 24 * 3600
DAYS = 365
AUTHORITY_DAYS = 3650


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One certificate: who it is for, who signs it, and where it may be used."""

    name: str
    authority: str
    common_name: str
    organisation: str = ""
    hosts: tuple[str, ...] = ()
    """Names and addresses; a server's certificate has some, a client's has none."""

    @property
    def subject(self) -> str:
        """Return the subject as openssl takes it."""
        return f"{f'/O={self.organisation}' if self.organisation else ''}/CN={self.common_name}"

    def extensions(self) -> str:
        """Return the extensions as openssl's configuration has them."""
        uses = "serverAuth,clientAuth" if self.hosts else "clientAuth"
        lines = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature", f"extendedKeyUsage={uses}"]
        if self.hosts:
            lines.append("subjectAltName=" + ",".join(f"{_kind(host)}:{host}" for host in self.hosts))
        return "\n".join(lines) + "\n"


AUTHORITIES = {
    "ca": "slipway-local-ca",
    "front-proxy-ca": "slipway-local-front-proxy-ca",
    "etcd-ca": "slipway-local-etcd-ca",
}


def leaves(node_ip: str) -> tuple[Leaf, ...]:
    """Return every certificate of a cluster whose node has this address."""
    api = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    return (
        Leaf(
            name="apiserver",
            authority="ca",
            common_name="kube-apiserver",
            hosts=(*api, "localhost", "127.0.0.1", API_SERVICE_IP, node_ip),
        ),
        Leaf(
            name="kubelet-server", authority="ca", common_name=f"system:node:{NODE}", hosts=(NODE, "127.0.0.1", node_ip)
        ),
        Leaf(
            name="metrics-server",
            authority="ca",
            common_name="metrics-server",
            hosts=("metrics-server.kube-system.svc", "127.0.0.1", node_ip),
        ),
        Leaf(name="etcd-server", authority="etcd-ca", common_name="etcd", hosts=("localhost", "127.0.0.1")),
        Leaf(name="etcd-client", authority="etcd-ca", common_name="kube-apiserver"),
        Leaf(name="front-proxy-client", authority="front-proxy-ca", common_name="front-proxy-client"),
        Leaf(name="admin", authority="ca", common_name="slipway-admin", organisation="system:masters"),
        Leaf(name="apiserver-kubelet", authority="ca", common_name="apiserver-kubelet", organisation="system:masters"),
        Leaf(name="controller-manager", authority="ca", common_name="system:kube-controller-manager"),
        Leaf(name="scheduler", authority="ca", common_name="system:kube-scheduler"),
        Leaf(name="kubelet", authority="ca", common_name=f"system:node:{NODE}", organisation="system:nodes"),
        Leaf(name="kube-proxy", authority="ca", common_name="system:kube-proxy"),
        Leaf(name="coredns", authority="ca", common_name="system:coredns"),
        Leaf(name="metrics-client", authority="ca", common_name="system:metrics-server"),
        Leaf(name="provisioner", authority="ca", common_name="system:slipway-provisioner"),
    )


def ensure(folder: Path, node_ip: str, *, only: frozenset[str] | None = None) -> None:
    """Make what is missing, and make anew what ends soon or was made for another address.

    Args:
        folder: Holds ``<name>.crt`` and ``<name>.key``; private to root.
        node_ip: The node's address, which servers' certificates name.
        only: Names of the certificates that are needed; None: all.

    Raises:
        Refused: openssl failed.
    """
    before = os.umask(0o077)
    try:
        for name, common_name in AUTHORITIES.items():
            _ensure_authority(folder, name, common_name)
        _ensure_signing_key(folder)
        for leaf in leaves(node_ip):
            if only is None or leaf.name in only:
                _ensure_leaf(folder, leaf)
    finally:
        os.umask(before)


def _ensure_signing_key(folder: Path) -> None:
    """Make the pair that signs and checks the tokens of service accounts."""
    key, public = folder / "service-account.key", folder / "service-account.pub"
    if key.exists() and public.exists():
        return
    _openssl("genrsa", "-out", str(_fresh(key)), "2048")
    _openssl("rsa", "-in", str(_fresh(key)), "-pubout", "-out", str(public))
    _fresh(key).rename(key)


def _ensure_authority(folder: Path, name: str, common_name: str) -> None:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if certificate.exists() and key.exists() and _lasts(certificate):
        return
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"),
        *("-days", str(AUTHORITY_DAYS), "-subj", f"/CN={common_name}"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"),
        *("-keyout", str(_fresh(key)), "-out", str(_fresh(certificate))),
    )
    # The certificate last: where it is there, its key is too.
    _fresh(key).rename(key)
    _fresh(certificate).rename(certificate)


def _ensure_leaf(folder: Path, leaf: Leaf) -> None:
    certificate, key, made_from = (folder / f"{leaf.name}.{end}" for end in ("crt", "key", "from"))
    authority = folder / f"{leaf.authority}.crt"
    wanted = hashlib.sha256(f"{leaf!r}{leaf.extensions()}".encode() + authority.read_bytes()).hexdigest()
    made = made_from.exists() and made_from.read_text() == wanted and certificate.exists() and key.exists()
    if made and _lasts(certificate):
        return
    made_from.unlink(missing_ok=True)
    request, extensions = folder / f"{leaf.name}.csr", folder / f"{leaf.name}.ext"
    extensions.write_text(leaf.extensions())
    _openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"),
        *("-subj", leaf.subject, "-keyout", str(key), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-sha256", "-days", str(DAYS), "-extfile", str(extensions)),
        *("-CA", str(authority), "-CAkey", str(folder / f"{leaf.authority}.key")),
        *("-set_serial", f"0x{os.urandom(16).hex()}", "-out", str(certificate)),
    )
    request.unlink()
    extensions.unlink()
    made_from.write_text(wanted)


def _lasts(certificate: Path) -> bool:
    command = ["openssl", "x509", "-checkend", str(RENEW_SECONDS), "-noout", "-in", str(certificate)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Refused(f"openssl {arguments[0]} failed: {last}")


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _kind(host: str) -> str:
    return "IP" if host.replace(".", "").isdigit() else "DNS"
