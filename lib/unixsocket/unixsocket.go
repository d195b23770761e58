// Package unixsocket listens on unix sockets that an earlier process may have
// left behind.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ErrInUse means that somebody answers on the socket.
var ErrInUse = errors.New("another process is listening")

// maxPath is how long Linux lets the path of a socket be, in bytes.
const maxPath = 107

// Listen makes the socket, with its directory where that is missing. A socket
// that nobody listens on is replaced; one that answers, or a file that is no
// socket, is left alone and refused. Closing the listener removes the socket.
func Listen(path string, mode fs.FileMode) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) { return nil, fmt.Errorf("unix socket %s: %w", path, err) }
	if len(path) > maxPath {
		return fail(fmt.Errorf("path of %d bytes, at most %d are possible", len(path), maxPath))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	if err := removeStale(path); err != nil {
		return fail(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fail(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return fail(err)
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("exists and is not a socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return ErrInUse
	}
	return os.Remove(path)
}
