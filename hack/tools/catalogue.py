"""Which tools there are, at which version, and how each is built: the one place to change a version.

Each Go tool has a module of its own under ``go/``, so that its ``go.sum`` locks every dependency.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MODULES = Path(__file__).parent / "go"
KUBERNETES = "1.36.3"
GO_VERSION = "1.26.8"
"""Go for machines that have none, or one that is too old."""
GO_MODULE_SUM = "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM="
"""As ``go.sum`` has it: of ``golang.org/toolchain`` at that version, for Linux on x86-64."""


@dataclass(frozen=True, kw_only=True)
class GoTool:
    """Programs that one Go module builds."""

    name: str
    version: str
    """As people write it; ``go.mod`` is what counts, and a unit test holds the two together."""
    programs: dict[str, str]
    """File name of each program → package that is its main."""
    stamps: dict[str, str] = field(default_factory=dict)
    """Variables that the linker sets, so that a program can say its version."""
    tags: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    """Further names of a program → the program, for those that act by their name."""
    cold: str = ""
    """How long the build takes from empty caches on two cores, to be said before it starts."""

    @property
    def module(self) -> Path:
        """Folder of the module that locks this tool."""
        return MODULES / self.name


COMPONENT_BASE = "k8s.io/component-base/version"

GO_TOOLS = {
    tool.name: tool
    for tool in (
        GoTool(
            name="kubernetes",
            version=KUBERNETES,
            programs={"kubernetes": "."},
            stamps={
                f"{COMPONENT_BASE}.gitVersion": f"v{KUBERNETES}",
                f"{COMPONENT_BASE}.gitMajor": KUBERNETES.split(".", maxsplit=1)[0],
                f"{COMPONENT_BASE}.gitMinor": KUBERNETES.split(".")[1],
                f"{COMPONENT_BASE}.gitTreeState": "clean",
            },
            links=dict.fromkeys(
                (
                    "kube-apiserver",
                    "kube-controller-manager",
                    "kube-scheduler",
                    "kubelet",
                    "kube-proxy",
                    "kubectl",
                ),
                "kubernetes",
            ),
            cold="about 8 minutes",
        ),
        GoTool(name="etcd", version="3.6.16", programs={"etcd": "go.etcd.io/etcd/server/v3"}, cold="about 40 seconds"),
        GoTool(
            name="containerd",
            version="2.4.2",
            programs={
                name: f"github.com/containerd/containerd/v2/cmd/{name}"
                for name in ("containerd", "containerd-shim-runc-v2", "ctr")
            },
            stamps={"github.com/containerd/containerd/v2/version.Version": "v2.4.2"},
            tags=("no_btrfs", "no_devmapper", "no_zfs"),
            cold="about 90 seconds",
        ),
        GoTool(
            name="coredns",
            version="1.14.0",
            programs={"coredns": "."},
            cold="about a minute",
        ),
        GoTool(
            name="metrics-server",
            version="0.9.0",
            programs={"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
            cold="about 3 minutes",
        ),
        GoTool(
            name="provisioner",
            version="0.1.0",
            programs={"provisioner": "."},
            cold="about a minute",
        ),
        GoTool(name="pause", version="0.1.0", programs={"pause": "."}),
        GoTool(
            name="helm",
            version="4.3.1",
            programs={"helm": "helm.sh/helm/v4/cmd/helm"},
            stamps={"helm.sh/helm/v4/internal/version.version": "v4.3.1"},
            cold="about 2 minutes",
        ),
        GoTool(
            name="crane",
            version="0.22.1",
            programs={"crane": "github.com/google/go-containerregistry/cmd/crane"},
            stamps={"github.com/google/go-containerregistry/cmd/crane/cmd.Version": "0.22.1"},
        ),
        GoTool(
            name="kubeconform",
            version="0.8.0",
            programs={"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
            stamps={"main.version": "v0.8.0"},
        ),
        GoTool(
            name="kube-score",
            version="1.20.0",
            programs={"kube-score": "github.com/zegl/kube-score/cmd/kube-score"},
            stamps={"main.version": "1.20.0"},
        ),
        GoTool(
            name="h2spec",
            version="2.2.1+incompatible",  # as Go calls a module of before modules
            programs={"h2spec": "github.com/summerwind/h2spec/cmd/h2spec"},
            stamps={"main.VERSION": "2.2.1"},
        ),
        GoTool(
            name="grpcurl",
            version="1.9.4",
            programs={"grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl"},
            stamps={"main.version": "v1.9.4"},
            cold="about a minute",
        ),
        GoTool(
            name="versitygw",
            version="1.8.0",
            programs={"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
            stamps={"main.Version": "v1.8.0"},
            cold="about 2 minutes",
        ),
        GoTool(name="kind", version="0.33.0", programs={"kind": "sigs.k8s.io/kind"}),
        GoTool(
            name="argocd",
            version="3.5.7",
            programs={"argocd": "github.com/argoproj/argo-cd/v3/cmd"},
            stamps={"github.com/argoproj/argo-cd/v3/common.version": "3.5.7"},
            cold="about 8 minutes",
        ),
        GoTool(name="flux-apply", version="0.1.0", programs={"flux-apply": "."}, cold="about a minute"),
    )
}

DEBIAN = {
    "apache2": "apache2-bin",
    "bash": "bash",
    "busybox": "busybox-static",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "conntrack": "conntrack",
    "curl": "curl",
    "docker-registry": "docker-registry",
    "git": "git",
    "go": "golang-go",
    "h2load": "nghttp2-client",
    "ip": "iproute2",
    "iptables": "iptables",
    "mcs": "mono-mcs",
    "mmdebstrap": "mmdebstrap",
    "mono": "mono-runtime",
    "mount": "mount",
    "nft": "nftables",
    "openssl": "openssl",
    "redis-server": "redis-server",
    "runc": "runc",
    "socat": "socat",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "svnserve": "subversion",
    "wrk": "wrk",
    "/usr/lib/apache2/modules/mod_dav_svn.so": "libapache2-mod-svn",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/lib/mono/4.5/System.Net.Http.dll": "libmono-system-net-http4.0-cil",
}
"""Program (or a file that tells) → the Debian package that it comes from."""

CLUSTER_PROGRAMS = (
    "conntrack",
    "docker-registry",
    "ip",
    "iptables",
    "mount",
    "nft",
    "openssl",
    "runc",
    "socat",
    "/usr/lib/cni/ptp",
)
"""What the local cluster needs from Debian."""


def provider(program: str) -> GoTool:
    """Return the tool that provides a program.

    Raises:
        KeyError: No tool does.
    """
    for tool in GO_TOOLS.values():
        if program in tool.programs or program in tool.links:
            return tool
    raise KeyError(program)


def program_names() -> list[str]:
    """Name everything that `ensure` can make available, but for what Debian has."""
    return sorted({name for tool in GO_TOOLS.values() for name in (*tool.programs, *tool.links)} | {"uv"})
