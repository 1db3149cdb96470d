"""A web server as companies have it: Apache with the certificate of a private authority.

Serves Git, Subversion and a package index over https, each open (``/open``), with a
password (``/private``) and to nobody (``/closed``), and is a forward proxy on a port of
its own. Unit tests run it on loopback, the journeys on the address that pods reach.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

from lab.kube import wait_for
from lab.ports import free_port

USER, PASSWORD = "reader", "p@ss word'"
_MODULES = Path("/usr/lib/apache2/modules")
_LOADED = """
mpm_prefork authn_core authn_file authz_core authz_host authz_user auth_basic alias autoindex cgi dav dav_svn dir env
headers mime proxy proxy_connect proxy_http setenvif ssl
"""
_CONFIG = """\
{modules}
{account}
ServerRoot "{root}"
ServerName {address}
DefaultRuntimeDir "{root}"
PidFile "{root}/httpd.pid"
ErrorLog "{root}/error.log"
LogFormat "%p %m %U %u %>s" short
CustomLog "{root}/access.log" short
TypesConfig /dev/null
AddType text/html .html
StartServers 2
MinSpareServers 1
Listen {address}:{port}
Listen {address}:{proxy_port}
<Directory "/">
  Require all granted
  Options +Indexes
  IndexOptions FancyIndexing
</Directory>
<VirtualHost {address}:{port}>
  SSLEngine on
  SSLCertificateFile "{root}/server.pem"
  SetEnv GIT_PROJECT_ROOT "{root}/git"
  SetEnv GIT_HTTP_EXPORT_ALL 1
  # The server's user is not the repositories' owner.
  SetEnv GIT_CONFIG_COUNT 1
  SetEnv GIT_CONFIG_KEY_0 safe.directory
  SetEnv GIT_CONFIG_VALUE_0 *
  SetEnvIf Git-Protocol (.+) GIT_PROTOCOL=$1
  <Location /private>
    AuthType Basic
    AuthName "private"
    AuthUserFile "{root}/users"
    Require valid-user
  </Location>
  <Location /closed>
    Require all denied
  </Location>
{areas}
{registry}
</VirtualHost>
<VirtualHost {address}:{proxy_port}>
  ProxyRequests On
  AllowCONNECT 443 1024-65535
  Alias /simple/ "{root}/simple/"
  <Proxy *>
    Require all granted
  </Proxy>
</VirtualHost>
"""
_AREA = """\
  ScriptAlias /{area}/git/ /usr/lib/git-core/git-http-backend/
  Alias /{area}/simple/ "{root}/simple/"
  <Location /{area}/svn>
    DAV svn
    SVNParentPath "{root}/svn"
  </Location>
"""

_REGISTRY = """\
  ProxyPass /v2/ http://{registry}/v2/
  ProxyPreserveHost On
  RequestHeader set X-Forwarded-Proto https
  <Location /v2/>
    AuthType Basic
    AuthName "registry"
    AuthUserFile "{root}/users"
    Require valid-user
  </Location>
"""


class WebServer:
    """Apache, in a folder of its own that goes with it."""

    def __init__(self, address: str, *, registry: str | None = None) -> None:
        """Prepare it; ``registry`` is the host and port of one that it stands before, with TLS and a password."""
        # Not pytest's or the cache's folders: those are closed to Apache's user.
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-web-")
        self.root = Path(self._folder.name)
        self.root.chmod(0o755)
        self.address = address
        self.port, self.proxy_port = free_port(address), free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        authority = trustme.CA()
        self.authority = authority.cert_pem.bytes().decode()
        """PEM text of the authority that signed the server's certificate."""
        # Subversion reads no addresses among the other names, but does take the common name.
        server = authority.issue_cert(address, common_name=address)
        (self.root / "server.pem").write_bytes(server.private_key_and_cert_chain_pem.bytes())
        hashed = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()  # noqa: S324 - as htpasswd -s
        (self.root / "users").write_text(f"{USER}:{{SHA}}{hashed}\n")
        for name in ("git", "svn", "simple"):
            (self.root / name).mkdir()
        self._configure(registry)

    def _configure(self, registry: str | None) -> None:
        account = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        modules = "\n".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _LOADED.split())
        areas = "".join(_AREA.format(area=area, root=self.root) for area in ("open", "private", "closed"))
        text = _CONFIG.format(
            modules=modules,
            account=account,
            areas=areas,
            registry=_REGISTRY.format(registry=registry, root=self.root) if registry else "",
            root=self.root,
            address=self.address,
            port=self.port,
            proxy_port=self.proxy_port,
        )
        (self.root / "httpd.conf").write_text(text)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Serve; what was published before is there again."""
        command = ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", str(self.root / "httpd.conf")]
        with (self.root / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, seconds=20, what=f"Apache on {self.address}:{self.port}", every=0.05)

    def stop(self) -> None:
        """Answer nobody any more; the folder stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout=20)
            self._process = None

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            said = (self.root / "start.log").read_text() + (self.root / "error.log").read_text()
            raise RuntimeError(f"Apache did not start: {said[-500:]}")
        with socket.socket() as probe:
            return probe.connect_ex((self.address, self.port)) == 0

    def url(self, area: str, path: str) -> str:
        """Return an address below ``open``, ``private`` or ``closed``, such as ``git/flights.git``."""
        return f"https://{self.address}:{self.port}/{area}/{path}"

    @property
    def proxy(self) -> str:
        """Address of the forward proxy."""
        return f"http://{self.address}:{self.proxy_port}"

    def plain_url(self, path: str) -> str:
        """Return an address of the package index without TLS, such as ``tiny/tiny-1.0.tar.gz``."""
        return f"{self.proxy}/simple/{path}"

    def proxied(self) -> list[str]:
        """Return what went through the proxy until now, a line each."""
        log = self.root / "access.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.startswith(f"{self.proxy_port} ")]

    def add_git(self, name: str, repository: Path) -> None:
        """Serve a copy of a repository as ``git/<name>.git``."""
        target = self.root / "git" / f"{name}.git"
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", "--bare", str(repository), str(target)], check=True)

    def add_svn(self, name: str, tree: Path) -> None:
        """Serve a folder as revision 1 of ``svn/<name>``, below ``trunk``."""
        target = self.root / "svn" / name
        subprocess.run(["svnadmin", "create", str(target)], check=True)
        subprocess.run(["svn", "import", "-q", "-m", "first", str(tree), f"file://{target}/trunk"], check=True)

    def add_file(self, project: str, name: str, content: bytes) -> str:
        """Put a file into the package index, as PEP 503 has it; returns its hash as requirements have it."""
        folder = self.root / "simple" / project
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        page = folder / "index.html"
        before = page.read_text() if page.exists() else ""
        page.write_text(f'{before}<a href="{name}#sha256={digest}">{name}</a>\n')
        return f"sha256:{digest}"
