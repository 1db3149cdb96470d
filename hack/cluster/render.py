"""The components' configuration files as text. Pure: equal input gives equal text."""

from __future__ import annotations

import json
from typing import Any

from cluster.layout import (
    CNI_NETWORK,
    DNS_SERVICE_IP,
    NFT_TABLE,
    PAUSE_IMAGE,
    POD_NETWORK,
    PORTS,
    Layout,
)


def kubeconfig(layout: Layout, user: str, server: str = f"https://127.0.0.1:{PORTS.apiserver}") -> str:
    """A kubeconfig that names the certificate of ``user`` by its path, so that renewal needs no rewrite."""
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "slipway",
                    "cluster": {"server": server, "certificate-authority": str(layout.pki / "ca.crt")},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate": str(layout.pki / f"{user}.crt"),
                        "client-key": str(layout.pki / f"{user}.key"),
                    },
                }
            ],
            "contexts": [{"name": "slipway", "context": {"cluster": "slipway", "user": user}}],
            "current-context": "slipway",
        }
    )


def portable_kubeconfig(server: str, authority: str, certificate: str, key: str) -> str:
    """A kubeconfig that holds all it needs (base64 of PEM), so that a copy works elsewhere."""
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "slipway", "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": "admin", "user": {"client-certificate-data": certificate, "client-key-data": key}}],
            "contexts": [{"name": "slipway", "context": {"cluster": "slipway", "user": "admin"}}],
            "current-context": "slipway",
        }
    )


def kubelet(layout: Layout, *, node_ip: str, resolv_conf: str) -> str:
    """The kubelet's configuration."""
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node_ip,
            "port": PORTS.kubelet,
            "healthzPort": PORTS.kubelet_health,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
            "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{layout.cgroup}",
            "failCgroupV1": False,  # many a machine still has version 1, and nothing here needs version 2
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,  # kube-proxy uses nftables; these would stay behind
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_SERVICE_IP],
            "resolvConf": resolv_conf,
            "podLogsDir": str(layout.logs / "pods"),
            "volumePluginDir": str(layout.kubelet / "volume-plugins"),
            "serializeImagePulls": False,
            "containerLogMaxSize": "5Mi",
            # A developer's disk is often nearly full; 1 % is when things start to break.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 98,
            "imageGCLowThresholdPercent": 95,
            "shutdownGracePeriod": "0s",
        }
    )


def kube_proxy(layout: Layout, *, node_ip: str) -> str:
    """kube-proxy's configuration: nftables, and the machine's connection tracking left as it is."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(layout.etc / "kube-proxy.kubeconfig")},
            "clusterCIDR": POD_NETWORK,
            "bindAddress": node_ip,
            "healthzBindAddress": f"127.0.0.1:{PORTS.proxy_health}",
            "metricsBindAddress": f"127.0.0.1:{PORTS.proxy_metrics}",
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
    )


def cni(layout: Layout) -> str:
    """The pod network: a pair of devices for each pod, routed by the node.

    Point to point, as answers of a Service then always come back through the node's connection tracking;
    on a bridge they need the br_netfilter module, which not every kernel has.
    """
    return _json(
        {
            "cniVersion": "1.0.0",
            "name": CNI_NETWORK,
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,  # one rule for the whole network instead: see `masquerade`
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(layout.run / "cni"),
                        "ranges": [[{"subnet": POD_NETWORK}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
    )


def masquerade() -> str:
    """The rules that let pods reach the outside under the node's address, as nft reads them.

    Declared, emptied and filled in one transaction, so that loading it twice is harmless.
    """
    return f"""table ip {NFT_TABLE}
delete table ip {NFT_TABLE}
table ip {NFT_TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} oifname != "lo" masquerade
  }}
}}
"""


def containerd(layout: Layout) -> str:
    """Configuration of containerd."""
    cri = 'plugins."io.containerd.cri.v1'
    return f"""version = 3
root = {_quoted(layout.root / "containerd")}
state = {_quoted(layout.run / "containerd")}
# Nothing of a developer's machine is to be tuned for the sake of a cluster.
oom_score = 0
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = {_quoted(layout.containerd_socket)}

[ttrpc]
  address = {_quoted(str(layout.containerd_socket) + ".ttrpc")}

[{cri}.images"]
  snapshotter = "overlayfs"
  # Imported at the start, not pulled: the cluster's first pod must not depend on a registry.
  [{cri}.images".pinned_images]
    sandbox = {_quoted(PAUSE_IMAGE)}
  [{cri}.images".registry]
    config_path = {_quoted(layout.etc / "registries")}

[{cri}.runtime"]
  # Root may lack CAP_SYS_RESOURCE, as in many a virtual machine and container; runc then fails without this.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [{cri}.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = {_quoted(layout.etc / "cni")}
    use_internal_loopback = true
  [{cri}.runtime".containerd]
    default_runtime_name = "runc"
    [{cri}.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = {_quoted(layout.run / "runc")}
"""


def registry_hosts(prefix: str) -> str:
    """What containerd is told of the cluster's registry: plain http, at this address only."""
    return f"""server = "http://{prefix}"

[host."http://{prefix}"]
  capabilities = ["pull", "resolve", "push"]
"""


def registry(layout: Layout, *, node_ip: str) -> str:
    """The registry's configuration; deleting is allowed, as Slipway cleans up after itself."""
    return _json(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(layout.root / "registry")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
                "maintenance": {"uploadpurging": {"enabled": True, "age": "24h", "interval": "6h", "dryrun": False}},
            },
            "http": {"addr": f"{node_ip}:{PORTS.registry}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
        }
    )


def corefile(layout: Layout, *, node_ip: str, resolv_conf: str) -> str:
    """CoreDNS's configuration; it runs beside the control plane and is reached through the Service kube-dns."""
    return f""".:{PORTS.dns} {{
  bind {node_ip}
  errors
  health 127.0.0.1:{PORTS.dns_health}
  ready 127.0.0.1:{PORTS.dns_ready}
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {layout.etc / "coredns.kubeconfig"}
    pods insecure
    ttl 5
  }}
  forward . {resolv_conf}
  cache 30 {{
    disable success cluster.local
    disable denial cluster.local
  }}
  loadbalance
}}
"""


def _json(content: dict[str, Any]) -> str:
    """JSON is YAML, and the standard library writes it."""
    return json.dumps(content, indent=2) + "\n"


def _quoted(value: object) -> str:
    return json.dumps(str(value))
