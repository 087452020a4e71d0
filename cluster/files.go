package cluster

// This file is a file system as far as a node's own files need one, with what makes a change durable spelt out.

import (
	"io"
	"os"
	"path/filepath"
)

// files is a file system. What a method changes is durable once the file was synced and, for names, the directory that holds them.
type files interface {
	// Mkdir makes a directory that only its owner can read, if it is missing. The one above it is there.
	Mkdir(dir string) error
	// Names is what is in a directory.
	Names(dir string) ([]string, error)
	// Create makes an empty file that only its owner can read, in place of one of that name.
	Create(path string) (writableFile, error)
	Open(path string) (io.ReadCloser, error)
	Rename(from, to string) error
	// RemoveAll removes a file, or a directory with all that is in it, if it is there.
	RemoveAll(path string) error
	SyncDir(dir string) error
}

// writableFile is a file in the making.
type writableFile interface {
	io.WriteCloser
	Sync() error
}

// osFiles is the real file system.
type osFiles struct{}

func (osFiles) Mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

func (osFiles) Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// osFile is one of its files in the making.
type osFile struct{ *os.File }

func (osFiles) Create(path string) (writableFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) Open(path string) (io.ReadCloser, error) { return os.Open(path) }
func (osFiles) Rename(from, to string) error            { return os.Rename(from, to) }
func (osFiles) RemoveAll(path string) error             { return os.RemoveAll(path) }
func (osFiles) SyncDir(dir string) error                { return syncDir(dir) }

// replaceFile replaces a file's content at once: after a crash it is the old or the new.
func replaceFile(path string, content []byte) error { return replace(osFiles{}, path, content) }

func replace(fs files, path string, content []byte) error {
	temp := path + ".tmp"
	if err := writeFile(fs, temp, content); err != nil {
		return err
	}
	if err := fs.Rename(temp, path); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// writeFile writes a file, and makes its content durable but not its name.
func writeFile(fs files, path string, content []byte) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// syncDir makes what was created, renamed or removed in a directory durable.
func syncDir(path string) error { return syncFile(path) }

// syncFile makes durable what an earlier process may have left in the page cache: after a kill it can be read, and would be gone after
// a power cut, though this process acted on it.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
