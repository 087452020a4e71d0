package cluster

// This file is the data directory itself: one process at a time holds it, and it knows who its node is.

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// identity is what a node remembers about itself, beside what Raft remembers.
type identity struct {
	ServerID  string // raft's id of this node: random, made at the first start
	Name      string // fixed for a data directory
	ClusterID string // empty until the node belongs to a cluster
	Promised  string // the cluster id promised at bootstrap
	Minter    string // the server id to which it was promised

	Mint          []mintServer // what this node, as minter, wrote down before it asked for promises
	Bootstrapping bool         // all promises were there: from now on the list is final
	Started       bool         // the log has held something
	Removed       bool         // the cluster has removed this node
}

// mintServer is one server of the first configuration.
type mintServer struct {
	ID   string
	Name string
	Addr string // of the node port
}

// What a data directory has beside the stores.
const (
	identityName = "node.json"
	lockName     = "LOCK"
)

// identityFormat is the version of node.json.
const identityFormat = 1

// identityFile is node.json. The checksum is of Node's bytes: a server id that changes by a bit would vote twice.
type identityFile struct {
	Format   int             `json:"format"`
	Checksum string          `json:"crc32c"`
	Node     json.RawMessage `json:"node"`
}

// dataDir is a data directory that this process holds. All methods may be called at once.
type dataDir struct {
	path string
	lock *os.File

	mu   sync.Mutex // guards node, and the order in which it is written
	node identity
}

// openDataDir makes the directory if it is missing, takes its lock, and loads its identity, or makes one at the first start. The
// identity is written again at every start, which proves that the directory can be written. Every error is one line that says
// what to do.
func openDataDir(path, name string) (*dataDir, error) {
	d, err := holdDataDir(path)
	if err != nil {
		return nil, err
	}
	if err := d.load(name); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// holdDataDir makes the directory if it is missing, takes its lock, and finishes a recovery that was interrupted.
func holdDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, unusable(path, err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, unusable(path, err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	if err := finishRecovery(path); err != nil {
		_ = lock.Close()
		return nil, unusable(path, err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

// lockDir takes the lock of a directory, before anything else there is touched: bbolt would wait for another process for ever,
// without a word.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(path, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := os.ReadFile(f.Name())
		_ = f.Close()
		return nil, fmt.Errorf("data directory %s is in use by process %s: stop it, or choose another data directory",
			path, strings.TrimSpace(string(holder)))
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, unusable(path, err)
	}
	return f, nil
}

// load reads the identity, or makes one.
func (d *dataDir) load(name string) error {
	raw, err := os.ReadFile(d.file())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.save(newIdentity(name))
	case err != nil:
		return unusable(d.path, err)
	}
	node, err := decodeIdentity(raw)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", d.path, err)
	}
	if node.Name != name {
		return fmt.Errorf("data directory %s belongs to the node named %q, not %q: start it with --name %s, or choose another data directory",
			d.path, node.Name, name, node.Name)
	}
	return d.save(node)
}

// newIdentity is a server that never was.
func newIdentity(name string) identity {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return identity{ServerID: hex.EncodeToString(id[:]), Name: name}
}

// decodeIdentity reads node.json.
func decodeIdentity(raw []byte) (identity, error) {
	var file identityFile
	var node identity
	err := json.Unmarshal(raw, &file)
	if err == nil && file.Format > identityFormat {
		return identity{}, fmt.Errorf("it was written by a newer version of fleet (format %d, this one knows %d): start that version",
			file.Format, identityFormat)
	}
	if err != nil || file.Format < 1 || file.Checksum != checksumText(file.Node) || json.Unmarshal(file.Node, &node) != nil {
		return identity{}, fmt.Errorf("%w: %s is damaged: %s", ErrStorage, identityName, remedy)
	}
	return node, nil
}

func (d *dataDir) file() string { return filepath.Join(d.path, identityName) }

// identity is what the node knows about itself now.
func (d *dataDir) identity() identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	node := d.node
	node.Mint = append([]mintServer(nil), node.Mint...)
	return node
}

// update changes the identity. It is durable when update returns; after an error the old one stands.
func (d *dataDir) update(change func(*identity)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	node := d.node
	node.Mint = append([]mintServer(nil), node.Mint...)
	change(&node)
	return d.write(node)
}

// save replaces the identity. It is durable when save returns.
func (d *dataDir) save(node identity) error {
	return d.update(func(old *identity) { *old = node })
}

// write writes a file beside the old one, then renames it. The caller holds mu.
func (d *dataDir) write(node identity) error {
	body, err := json.Marshal(node)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(identityFile{Format: identityFormat, Checksum: checksumText(body), Node: body})
	if err != nil {
		return err
	}
	if err := replaceFile(d.file(), append(raw, '\n')); err != nil {
		return unusable(d.path, err)
	}
	d.node = node
	return nil
}

// Close lets another process have the directory.
func (d *dataDir) Close() error { return d.lock.Close() }

func checksumText(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

// unusable says in one line what is wrong with a data directory, and what to do.
func unusable(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("no space is left for data directory %s: free some, then start again (%w)", path, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("data directory %s can't be written by this user: make it writable, or choose another (%w)", path, err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("data directory %s is not a directory: choose another (%w)", path, err)
	}
	return fmt.Errorf("data directory %s can't be used: choose another, or look at its disk (%w)", path, err)
}
