package chaos

// This file is bad disks: small ones that fill, system calls that fail or hang, and bytes that change.

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// SmallDisk mounts a disk for the time of the test, and skips it where that is not possible.
func SmallDisk(t testing.TB, mebibytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mebibytes)); err != nil {
		lacking(t, "mounting a small disk needs root and the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			kept, err := os.MkdirTemp("", "fleet-chaos-disk") //nolint:usetesting // it is kept
			if err == nil {
				_ = os.Remove(filepath.Join(dir, "ballast"))
				err = copyDir(dir, kept)
			}
			t.Logf("what was on the small disk is in %s (%v)", kept, err)
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// LeaveFree writes a ballast file that leaves so many bytes on a disk.
func LeaveFree(dir string, bytes int64) error {
	path := filepath.Join(dir, "ballast")
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err
	}
	size := int64(s.Bavail)*s.Bsize - bytes
	if size <= 0 {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.ENOSPC) && bytes == 0 {
		return nil // the node took the rest meanwhile: the disk is full all the same
	}
	return err
}

// Free takes the ballast away.
func Free(dir string) error { return os.RemoveAll(filepath.Join(dir, "ballast")) }

// Spell is system calls of a running process that fail or are slow, until Lift.
type Spell struct{ strace *exec.Cmd }

// Cast makes strace change what the calls of a running process come to, as in "fsync,fdatasync:error=EIO". It skips the test where that is
// not possible.
func Cast(t testing.TB, n *Node, inject string) *Spell {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		lacking(t, "making system calls fail needs strace")
	}
	calls, _, _ := strings.Cut(inject, ":")
	cmd := exec.Command("strace", "-f", "-p", strconv.Itoa(n.Pid()), "-o", "/dev/null", "-e", "trace="+calls, "-e", "inject="+inject)
	words, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(words)
	attached := false
	for !attached && lines.Scan() {
		attached = strings.Contains(lines.Text(), "attached")
		if !attached {
			lacking(t, "strace can't attach here: %s", lines.Text())
		}
	}
	go func() {
		for lines.Scan() { //nolint:revive // only to empty it
		}
	}()
	s := &Spell{cmd}
	t.Cleanup(s.Lift)
	return s
}

// Lift ends it. The process goes on, if it is still there.
func (s *Spell) Lift() {
	if s.strace == nil {
		return
	}
	_ = s.strace.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = s.strace.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		_ = s.strace.Process.Kill()
		<-done
	}
	s.strace = nil
}

// Damage changes a file: one bit of it, or where it ends. It says what it did.
func Damage(rnd *rand.Rand, path string, truncate bool) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(b) == 0 {
		return "nothing: it is empty", nil
	}
	at := rnd.IntN(len(b))
	if truncate {
		return fmt.Sprintf("%s cut to %d of %d bytes", filepath.Base(path), at, len(b)), os.Truncate(path, int64(at))
	}
	bit := rnd.IntN(8)
	b[at] ^= 1 << bit
	return fmt.Sprintf("%s with bit %d of byte %d of %d turned", filepath.Base(path), bit, at, len(b)), os.WriteFile(path, b, 0o600)
}
