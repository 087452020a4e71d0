package rpc

// This file makes what must be unpredictable: ids and the secrets of tokens. The state machine draws nothing at random.

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// idSource makes ULIDs that grow within one millisecond too. All methods may be called at once.
type idSource struct {
	mu      sync.Mutex // guards entropy
	entropy *ulid.MonotonicEntropy
}

func newIDSource() *idSource { return &idSource{entropy: ulid.Monotonic(rand.Reader, 0)} }

// next is a new ULID.
func (s *idSource) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := ulid.Timestamp(time.Now())
	id, err := ulid.New(ms, s.entropy)
	if err != nil { // the entropy of this millisecond ran over: once in 2⁴⁷ calls
		id = ulid.MustNew(ms, rand.Reader)
	}
	return id.String()
}

// A secret is secretPrefix, 43 characters of base 62 for 32 random bytes, and 6 for their CRC, so that scanners find
// leaked ones and a typo is told from a revoked token without asking the cluster.
const (
	secretPrefix = "flt_"
	secretDigits = 43
	sumDigits    = 6
)

// newSecret makes the secret of a token.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never returns an error
	body := base62(new(big.Int).SetBytes(b[:]), secretDigits)
	return secretPrefix + body + secretSum(body)
}

// wellFormedSecret reports whether s could be a token's secret.
func wellFormedSecret(s string) bool {
	rest, ok := strings.CutPrefix(s, secretPrefix)
	if !ok || len(rest) != secretDigits+sumDigits {
		return false
	}
	return secretSum(rest[:secretDigits]) == rest[secretDigits:]
}

func secretSum(body string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(body)))
	return base62(new(big.Int).SetBytes(b[:]), sumDigits)
}

// base62 writes n in digits, upper and lower case letters, padded to a width.
func base62(n *big.Int, width int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	out, base, digit := make([]byte, width), big.NewInt(62), new(big.Int)
	n = new(big.Int).Set(n)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		out[i] = alphabet[digit.Int64()]
	}
	return string(out)
}
