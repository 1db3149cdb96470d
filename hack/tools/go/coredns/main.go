// CoreDNS with the plugins that a cluster's own names need, and no others.
//
// The stock program also carries those for the DNS services of three clouds,
// for DNSSEC, etcd and tracing, which are most of the time of its build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
)

// Queries pass the plugins in this order, whatever the order in the Corefile.
func init() {
	dnsserver.Directives = []string{
		"bind", "health", "ready", "errors", "loadbalance", "cache", "kubernetes", "forward",
	}
}

func main() {
	coremain.Run()
}
