package main

// This file is how a client command finds its cluster: flags, then environment, then the file that dev leaves.

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lysnrai/fleet/rpc/client"
)

// defaultAddr is where a single node listens.
const defaultAddr = "http://127.0.0.1:8400"

// connection is the flags of a client command.
type connection struct {
	addr, token, tokenFile, product, caFile string
}

func (n *connection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.addr, "addr", "", "URLs or host:port of nodes, with commas, tried in turn (FLEET_ADDR)")
	f.StringVar(&n.token, "token", "", "token; others on this machine can see it here, so rather use FLEET_TOKEN")
	f.StringVar(&n.tokenFile, "token-file", "", "file with the token (FLEET_TOKEN_FILE)")
	f.StringVar(&n.product, "product", "", "product (FLEET_PRODUCT)")
	f.StringVar(&n.caFile, "ca-file", "", "certificates that a node's is checked against (FLEET_CA_FILE)")
}

// contextKeys are the keys of the context file.
var contextKeys = []string{"addr", "token", "product"}

// contextPath is the file that dev writes and clients read last.
func contextPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "fleet", "context.yaml"), nil
}

// resolve fills in what the flags leave out. A token on a higher level hides a file of tokens on a lower one.
func (n *connection) resolve() error {
	saved := map[string]string{}
	if path, err := contextPath(); err == nil {
		if _, err := os.Stat(path); err == nil {
			entries, err := readSettings(path, contextKeys)
			if err != nil {
				return err
			}
			for _, e := range entries {
				saved[e.name] = e.value
			}
		}
	}
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	if n.token == "" && n.tokenFile == "" {
		n.token, n.tokenFile = os.Getenv("FLEET_TOKEN"), os.Getenv("FLEET_TOKEN_FILE")
	}
	if n.token == "" && n.tokenFile != "" {
		token, err := readSecret("token-file", n.tokenFile)
		if err != nil {
			return err
		}
		n.token = string(token)
	}
	n.caFile = first(n.caFile, os.Getenv("FLEET_CA_FILE"))
	n.product = first(n.product, os.Getenv("FLEET_PRODUCT"))
	elsewhere := first(n.addr, os.Getenv("FLEET_ADDR"))
	n.addr = first(elsewhere, saved["addr"], defaultAddr)
	if elsewhere == "" || elsewhere == saved["addr"] { // the saved token and product are the saved cluster's only
		n.token, n.product = first(n.token, saved["token"]), first(n.product, saved["product"])
	}
	return nil
}

// addresses are the nodes: URLs, or host:port.
func (n *connection) addresses() (all []string) {
	for addr := range strings.SplitSeq(n.addr, ",") {
		if addr = strings.TrimSpace(addr); addr != "" {
			all = append(all, addr)
		}
	}
	return all
}

// config is what a client is made of.
func (n *connection) config() (client.Config, error) {
	if err := n.resolve(); err != nil {
		return client.Config{}, err
	}
	transport, err := n.transport()
	return client.Config{
		Addresses: n.addresses(), Token: n.token, Product: n.product, HTTPClient: transport, UserAgent: "fleet-node/" + version,
	}, err
}

// client connects; it does not call yet.
func (n *connection) client() (*client.Client, error) {
	config, err := n.config()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return c, nil
}

// transport trusts the file of certificates beside the system's own; nil if there is no such file.
func (n *connection) transport() (*http.Client, error) {
	if n.caFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(n.caFile)
	if err != nil {
		return nil, usagef("reading the certificates: %v", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, usagef("%s has no certificate", n.caFile)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return &http.Client{Transport: t}, nil
}
