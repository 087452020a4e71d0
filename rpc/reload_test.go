package rpc

// This file tests what a running server takes over: another root token, another certificate.

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRootTokenIsReplaced(t *testing.T) {
	a := New(Config{Node: newSingleNode(), RootToken: []byte("old")})
	status := func(token string) int {
		r := httptest.NewRequest(http.MethodGet, "/fleet/jobs", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Product-Id", "p")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w.Code
	}
	if got := status("old"); got != http.StatusOK {
		t.Fatalf("the first root token: got %d, want 200", got)
	}
	a.SetRootToken([]byte("new"))
	if got := status("new"); got != http.StatusOK {
		t.Errorf("the new root token: got %d, want 200", got)
	}
	if got := status("old"); got != http.StatusUnauthorized {
		t.Errorf("the old root token: got %d, want 401", got)
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, 1, time.Unix(1000, 0))
	s, err := Listen(ServerConfig{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, Handler: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	defer func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
	}()
	if got := serial(t, s.Addr().String()); got != 1 {
		t.Fatalf("got certificate %d, want 1", got)
	}
	writePair(t, cert, key, 2, time.Unix(2000, 0))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := serial(t, s.Addr().String()); got != 2 {
		t.Errorf("after a reload: got certificate %d, want 2", got)
	}
	if err := os.WriteFile(cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil {
		t.Error("a file that is no certificate: got no error")
	}
	if got := serial(t, s.Addr().String()); got != 2 {
		t.Errorf("after a reload that failed: got certificate %d, want still 2", got)
	}
}

// A certificate that is exchanged while requests run fails none of them; new connections show the new one.
func TestCertificateIsExchangedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, 1, time.Unix(1000, 0))
	s, err := Listen(ServerConfig{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	var (
		clients sync.WaitGroup
		shown   [4]atomic.Int64 // the serial that each client saw last
		over    atomic.Bool
	)
	for i := range shown {
		keep := i%2 == 0 // one connection for all, or one for each
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: !keep, //nolint:gosec // the test looks at the certificate itself
		}}
		clients.Go(func() {
			defer client.CloseIdleConnections()
			for !over.Load() {
				answer, err := client.Get("https://" + s.Addr().String())
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				_ = answer.Body.Close()
				shown[i].Store(answer.TLS.PeerCertificates[0].SerialNumber.Int64())
			}
		})
	}
	until := func(serial int64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); shown[1].Load() != serial || shown[3].Load() != serial; runtime.Gosched() {
			if time.Now().After(end) || t.Failed() {
				t.Errorf("new connections got certificates %d and %d, want %d", shown[1].Load(), shown[3].Load(), serial)
				return
			}
		}
	}
	for serial := int64(1); serial <= 10 && !t.Failed(); serial++ {
		if serial > 1 {
			writePair(t, cert, key, serial, time.Unix(1000*serial, 0))
			if err := s.Reload(); err != nil {
				t.Error(err)
			}
		}
		until(serial)
	}
	over.Store(true)
	clients.Wait()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
}

// A certificate that can't be read when its time to be looked at has come stays, and the log says so.
func TestCertificateThatCannotBeReadStays(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, 1, time.Unix(1000, 0))
	var logged bytes.Buffer
	p := &keyPair{cert: cert, key: key, log: hclog.New(&hclog.LoggerOptions{Output: &logged})}
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	first := p.loaded
	if err := os.WriteFile(key, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.looked = time.Time{} // long ago
	if got, err := p.certificate(nil); err != nil || got != first {
		t.Errorf("got another certificate, or %v", err)
	}
	if !strings.Contains(logged.String(), "the old one stays") {
		t.Errorf("logged %q, want that the old one stays", logged.String())
	}
}

// writePair writes a certificate that signs itself, with a time that tells it from the one before.
func writePair(t *testing.T, cert, key string, serial int64, modified time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
}

// serial is that of the certificate which the server shows.
func serial(t *testing.T, addr string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test looks at the certificate itself
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}
