package main

// This file is what an agent is told: its flags, and what is refused of them.

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/lysnrai/fleet"
	"github.com/lysnrai/fleet/cluster"
	"github.com/lysnrai/fleet/internal/nearest"
)

// agent is the flags of a node, and the secrets that they lead to.
type agent struct {
	name, dataDir                      string
	httpAddr, nodeAddr, gossipAddr     string
	advertiseAddr                      string
	join                               []string
	bootstrapExpect                    int
	rootTokenFile, clusterSecretFile   string
	gossipKeyFile                      string
	tlsCAFile, tlsCertFile, tlsKeyFile string
	logStore, logLevel, timing         string
	retention                          time.Duration
	logJSON, noAuth                    bool
	config                             string

	logLevelByFlag               bool
	rootToken, secret, gossipKey []byte
}

func (a *agent) flags(f *pflag.FlagSet) {
	host, _ := os.Hostname()
	f.StringVar(&a.name, "name", host, "label of this node, unique in the cluster and fixed for a data directory")
	f.StringVar(&a.dataDir, "data-dir", "", "where everything durable lives (<name>.fleet-data)")
	f.StringVar(&a.httpAddr, "http-addr", "127.0.0.1:8400", "host:port of the HTTP API")
	f.StringVar(&a.nodeAddr, "node-addr", ":8401", "host:port for other nodes")
	f.StringVar(&a.gossipAddr, "gossip-addr", ":8402", "host:port for gossip")
	f.StringVar(&a.advertiseAddr, "advertise-addr", "", "host that other nodes dial, a DNS name where addresses move (the host of --node-addr, or this machine's address)")
	f.StringSliceVar(&a.join, "join", nil, "gossip addresses of the cluster, with commas; this node's own may be among them")
	f.IntVar(&a.bootstrapExpect, "bootstrap-expect", 0, "how many empty nodes form a new cluster (0: wait to be joined)")
	f.StringVar(&a.rootTokenFile, "root-token-file", "", "file with the root token, the same on all nodes (or FLEET_ROOT_TOKEN)")
	f.StringVar(&a.clusterSecretFile, "cluster-secret-file", "", "file with the secret between nodes (derived from the root token)")
	f.StringVar(&a.gossipKeyFile, "gossip-key-file", "", "file with a gossip key of 16, 24 or 32 bytes, in base64 (derived)")
	f.StringVar(&a.tlsCAFile, "tls-ca-file", "", "certificates; --tls-cert-file must be signed by one of them")
	f.StringVar(&a.tlsCertFile, "tls-cert-file", "", "certificate of the HTTP API")
	f.StringVar(&a.tlsKeyFile, "tls-key-file", "", "key of the HTTP API")
	f.DurationVar(&a.retention, "retention", 30*24*time.Hour, "how long a job that has ended is kept; the leader's counts, so give all nodes the same")
	f.StringVar(&a.logStore, "log-store", "wal", "what keeps the log: wal or boltdb")
	f.StringVar(&a.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.BoolVar(&a.logJSON, "log-json", false, "write logs as JSON")
	f.StringVar(&a.timing, "timing", "lan", "time-outs: local, lan or wan")
	f.BoolVar(&a.noAuth, "no-auth", false, "let everybody in; only with every listener on loopback")
	f.StringVar(&a.config, "config", "", "YAML file; its keys are these flags")
}

// check refuses what can't work and reads the secrets. All of it is wrong usage: starting again does not help.
func (a *agent) check() error {
	if a.name == "" {
		return usagef("this machine has no name; give --name")
	}
	if wrong := fleet.ValidateName("--name", a.name); len(wrong) > 0 {
		return usagef("--name %q %s", a.name, wrong[0].Detail)
	}
	if a.dataDir == "" {
		a.dataDir = a.name + ".fleet-data"
	}
	for _, addr := range []struct{ flag, value string }{{"http-addr", a.httpAddr}, {"node-addr", a.nodeAddr}, {"gossip-addr", a.gossipAddr}} {
		if !hostPort(addr.value) {
			return usagef("--%s %q is no host:port", addr.flag, addr.value)
		}
	}
	for _, addr := range a.join {
		if !hostPort(addr) {
			return usagef("--join: %q is no host:port", addr)
		}
	}
	if host, _, err := net.SplitHostPort(a.advertiseAddr); err == nil {
		return usagef("--advertise-addr is a host; the port is that of --node-addr: give %q", host)
	}
	if a.bootstrapExpect < 0 {
		return usagef("--bootstrap-expect can't be negative")
	}
	if a.retention < time.Minute {
		return usagef("--retention is %v: jobs that have ended are kept for 1m at least, such as 168h for a week", a.retention)
	}
	for _, word := range []struct {
		flag, value string
		allowed     []string
	}{
		{"log-store", a.logStore, []string{"wal", "boltdb"}},
		{"timing", a.timing, []string{"local", "lan", "wan"}},
		{"log-level", a.logLevel, logLevels},
	} {
		if !slices.Contains(word.allowed, word.value) {
			return usagef("--%s is one of %s, not %q%s", word.flag, strings.Join(word.allowed, ", "), word.value, nearest.Hint(word.value, word.allowed))
		}
	}
	if err := a.readSecrets(); err != nil {
		return err
	}
	return a.checkTLS()
}

// hostPort reports whether this is an address with a port that there can be. Its host may be anything.
func hostPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil
}

var logLevels = []string{"trace", "debug", "info", "warn", "error"}

// readSecrets finds the root token and what derives from it.
func (a *agent) readSecrets() (err error) {
	if a.noAuth {
		for _, addr := range []string{a.httpAddr, a.nodeAddr, a.gossipAddr} {
			if !loopback(addr) {
				return usagef("--no-auth lets everybody in, so every listener must be on loopback, and %s is not: give 127.0.0.1 with the port", addr)
			}
		}
		a.secret = []byte("loopback")
	} else {
		if a.rootToken = []byte(strings.TrimSpace(os.Getenv("FLEET_ROOT_TOKEN"))); a.rootTokenFile != "" {
			if a.rootToken, err = readSecret("root-token-file", a.rootTokenFile); err != nil {
				return err
			}
		}
		if len(a.rootToken) == 0 {
			return usagef("there is no root token: give --root-token-file or FLEET_ROOT_TOKEN, the same on all nodes")
		}
		a.secret = a.rootToken
	}
	if a.clusterSecretFile != "" {
		if a.secret, err = readSecret("cluster-secret-file", a.clusterSecretFile); err != nil {
			return err
		}
	}
	if a.gossipKeyFile != "" {
		text, err := readSecret("gossip-key-file", a.gossipKeyFile)
		if err != nil {
			return err
		}
		key, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil || !slices.Contains([]int{16, 24, 32}, len(key)) {
			return usagef("--gossip-key-file %s: a gossip key is 16, 24 or 32 bytes in base64", a.gossipKeyFile)
		}
		a.gossipKey = key
	}
	return nil
}

// readSecret reads a file that only its owner, or its group, may read.
func readSecret(flag, path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, usagef("--%s: %v", flag, err)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return nil, usagef("--%s %s can be read by everybody: chmod 600 it", flag, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("--%s: %v", flag, err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil, usagef("--%s %s is empty", flag, path)
	}
	return b, nil
}

// checkTLS sees before the start what clients would see too late.
func (a *agent) checkTLS() error {
	if (a.tlsCertFile == "") != (a.tlsKeyFile == "") {
		return usagef("--tls-cert-file and --tls-key-file go together")
	}
	if a.tlsKeyFile != "" {
		if _, err := readSecret("tls-key-file", a.tlsKeyFile); err != nil {
			return err
		}
	}
	if a.tlsCAFile == "" {
		return nil
	}
	if a.tlsCertFile == "" {
		return usagef("--tls-ca-file is for --tls-cert-file, and that is missing")
	}
	ca, err := os.ReadFile(a.tlsCAFile)
	if err != nil {
		return usagef("--tls-ca-file: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return usagef("--tls-ca-file %s has no certificate", a.tlsCAFile)
	}
	if err := signedBy(a.tlsCertFile, roots); err != nil {
		return usagef("--tls-cert-file %s: %v", a.tlsCertFile, err)
	}
	return nil
}

// signedBy checks a chain of certificates in a file.
func signedBy(path string, roots *x509.CertPool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			chain = append(chain, c)
		}
	}
	if len(chain) == 0 {
		return fmt.Errorf("it has no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// loopback reports whether only this machine can reach an address.
func loopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// advertiseHost is the host that other nodes dial: as given, that of the node address, or this machine's.
func (a *agent) advertiseHost() string {
	if a.advertiseAddr != "" {
		return a.advertiseAddr
	}
	host, _, _ := net.SplitHostPort(a.nodeAddr)
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return host
	}
	return machineAddress()
}

// machineAddress is this machine's first address that is no loopback, a private one if there is one.
func machineAddress() string {
	found := "127.0.0.1"
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() || n.IP.To4() == nil {
			continue
		}
		if n.IP.IsPrivate() {
			return n.IP.String()
		}
		if found == "127.0.0.1" {
			found = n.IP.String()
		}
	}
	return found
}

// announcedHTTP is the address of the HTTP API that other nodes tell clients about: the host as it was given, and the
// port that it listens on.
func (a *agent) announcedHTTP(listening net.Addr) string {
	host, _, _ := net.SplitHostPort(a.httpAddr)
	_, port, _ := net.SplitHostPort(listening.String())
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = a.advertiseHost()
	}
	return net.JoinHostPort(host, port)
}

// adjust changes what a node is told in the build that internal/chaos runs (knobs.go), and nothing in any other.
var adjust = func(*cluster.Config) {}

func (a *agent) clusterConfig(log hclog.Logger, metrics prometheus.Registerer, http net.Addr) cluster.Config {
	c := cluster.Config{
		Name: a.name, DataDir: a.dataDir, HTTPAddr: a.announcedHTTP(http), NodeAddr: a.nodeAddr, GossipAddr: a.gossipAddr,
		AdvertiseAddr: a.advertiseHost(), Join: a.join, BootstrapExpect: a.bootstrapExpect, Secret: a.secret,
		GossipKey: a.gossipKey, LogStore: a.logStore, Timing: cluster.Timing(a.timing), Version: version,
		Retention: a.retention,
		Logger:    log, Metrics: metrics,
	}
	adjust(&c)
	return c
}

// currentLogLevel is the log level as environment and file say it now. A flag can't change.
func (a *agent) currentLogLevel() (string, error) {
	if a.logLevelByFlag {
		return a.logLevel, nil
	}
	fresh := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	var b agent
	b.flags(fresh)
	if err := fresh.Set("config", a.config); err != nil {
		return "", err
	}
	if _, err := settle(fresh, os.Environ()); err != nil {
		return "", err
	}
	if !slices.Contains(logLevels, b.logLevel) {
		return "", fmt.Errorf("%q is none of %s", b.logLevel, strings.Join(logLevels, ", "))
	}
	return b.logLevel, nil
}
