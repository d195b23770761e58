package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// findProgram gives the path of the program that argv0 names. A bare name is
// looked for in the roots and then along path; one with a slash is taken from
// dir. What is found must lie in a root: its directory with all links resolved.
// The program itself may be a link, because who can write into a root decides
// what is in it, and interpreters tell by the link where their packages are.
func findProgram(roots []string, path, dir, argv0 string) (string, error) {
	const field = "argv[0]"
	if len(roots) == 0 {
		return "", wire.E(wire.FailedPrecondition, field, "this node runs no worker processes: it names no directory with programs that may be started",
			"set workerRoots in the LocalController's configuration, such as [/usr/bin, /opt/workers]")
	}
	var tries []string
	switch {
	case !strings.Contains(argv0, "/"):
		for _, d := range append(roots[:len(roots):len(roots)], filepath.SplitList(path)...) {
			if filepath.IsAbs(d) {
				tries = append(tries, filepath.Join(d, argv0))
			}
		}
	case filepath.IsAbs(argv0):
		tries = []string{filepath.Clean(argv0)}
	default:
		tries = []string{filepath.Join(dir, argv0)}
	}
	outside := ""
	for _, p := range tries {
		info, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0) {
			continue
		}
		if err != nil {
			return "", wire.E(wire.FailedPrecondition, field, err.Error(), "")
		}
		parent, err := filepath.EvalSymlinks(filepath.Dir(p))
		if err != nil {
			return "", wire.E(wire.FailedPrecondition, field, err.Error(), "")
		}
		if under(roots, parent) {
			return p, nil
		}
		outside = p
	}
	if outside != "" {
		return "", wire.E(wire.PermissionDenied, field, fmt.Sprintf("%s is in none of the directories that programs may be started from", outside), "add its directory to workerRoots")
	}
	return "", wire.E(wire.NotFound, field, fmt.Sprintf("no program %.200q on this node", argv0), "install it in a directory of workerRoots")
}

// under tells whether dir, absolute and without links, is one of roots or below.
func under(roots []string, dir string) bool {
	for _, r := range roots {
		rel, err := filepath.Rel(r, dir)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// workingDir gives where a worker is started: own, a directory below it, or one
// in a root.
func workingDir(roots []string, own, asked string) (string, error) {
	const field = "workingDir"
	if asked == "" {
		return own, nil
	}
	if !filepath.IsAbs(asked) {
		if !filepath.IsLocal(asked) {
			return "", wire.E(wire.PermissionDenied, field, fmt.Sprintf("%.200q leaves the worker's own directory", asked), "")
		}
		return filepath.Join(own, asked), nil
	}
	dir, err := filepath.EvalSymlinks(asked)
	if err != nil {
		return "", wire.E(wire.FailedPrecondition, field, err.Error(), "")
	}
	if !under(roots, dir) {
		return "", wire.E(wire.PermissionDenied, field, fmt.Sprintf("%.200q is in none of workerRoots", asked), "leave it out: the worker has a directory of its own")
	}
	return dir, nil
}
