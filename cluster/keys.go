package cluster

// This file derives the cluster's keys from its secret, and judges by them who a peer is.

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// roleServer is the only role that may speak on the node port.
const roleServer = "server"

// clusterKeys is what every holder of the secret derives alike.
type clusterKeys struct {
	ca     ed25519.PrivateKey
	gossip []byte // 32 bytes
}

func deriveKeys(secret []byte) (*clusterKeys, error) {
	seed, err := hkdf.Key(sha256.New, secret, nil, "fleet node authority 1", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("deriving the node key: %w", err)
	}
	gossip, err := hkdf.Key(sha256.New, secret, nil, "fleet gossip 1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the gossip key: %w", err)
	}
	return &clusterKeys{ca: ed25519.NewKeyFromSeed(seed), gossip: gossip}, nil
}

// peer is who a certificate says its holder is. cluster is empty as long as the holder knows none.
type peer struct{ id, cluster string }

// certificate makes a certificate with a key of its own. The subject says it all: server id, cluster id, role.
func (k *clusterKeys) certificate(p peer) (*tls.Certificate, error) {
	return k.sign(p, roleServer)
}

func (k *clusterKeys) sign(p peer, role string) (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: p.id, OrganizationalUnit: []string{role}}
	if p.cluster != "" {
		subject.Organization = []string{p.cluster}
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature,
		// Nobody judges dates: a wrong clock must not cut a node off (docs/architecture.md, decision 9).
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	authority := &x509.Certificate{Subject: pkix.Name{CommonName: "fleet"}}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, public, k.ca)
	if err != nil {
		return nil, fmt.Errorf("making this node's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

// judge says who the peer of a connection is, if it holds the secret and the role of a server.
func (k *clusterKeys) judge(cs *tls.ConnectionState) (peer, error) {
	if len(cs.PeerCertificates) != 1 {
		return peer{}, fmt.Errorf("the peer sent %d certificates, want 1", len(cs.PeerCertificates))
	}
	c := cs.PeerCertificates[0]
	if c.SignatureAlgorithm != x509.PureEd25519 || !ed25519.Verify(k.ca.Public().(ed25519.PublicKey), c.RawTBSCertificate, c.Signature) {
		return peer{}, errors.New("the peer does not hold this cluster's secret")
	}
	if s := c.Subject; len(s.OrganizationalUnit) != 1 || s.OrganizationalUnit[0] != roleServer || s.CommonName == "" || len(s.Organization) > 1 {
		return peer{}, errors.New("the peer's certificate is not a server's")
	}
	p := peer{id: c.Subject.CommonName}
	if len(c.Subject.Organization) == 1 {
		p.cluster = c.Subject.Organization[0]
	}
	return p, nil
}
