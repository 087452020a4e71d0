package cluster

// This file has the kernel write a large file to the disk while it is being made.

import "golang.org/x/sys/unix"

// writeBack begins to write what was just written to the file, n bytes from off, and does not wait for it. It is for the sake of others:
// a sync of the log on the same disk would wait for all that had piled up. So an error is no matter; Sync will have it.
func (f osFile) writeBack(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
