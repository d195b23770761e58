package worker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cgroups is where the cgroups of lives are made, version 2 of the kernel's
// interface.
type cgroups struct {
	dir         string // empty: none can be made
	memory, cpu bool   // controllers that are there
}

// Names of cgroups that we make: that of all lives, and that of ourselves where
// ours has to be free of processes.
const (
	livesGroup = "sedna-workers"
	selfGroup  = "sedna-controller"
)

// openCgroups makes the cgroup of all lives below base, or below the cgroup of
// this process when base is empty. Without permission there is none.
func openCgroups(base string) cgroups {
	own := base == ""
	if own {
		base = ownCgroup()
	}
	if base == "" || !isCgroup(base) {
		return cgroups{}
	}
	dir := filepath.Join(base, livesGroup)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return cgroups{}
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		_ = os.Remove(dir)
		return cgroups{} // before Linux 5.14
	}
	c := cgroups{dir: dir}
	for name, have := range map[string]*bool{"memory": &c.memory, "cpu": &c.cpu} {
		if !slices.Contains(words(filepath.Join(base, "cgroup.controllers")), name) {
			continue
		}
		err := enable(base, name)
		// A group with processes cannot limit its children: where we are its only
		// one, we step aside.
		if err != nil && own && alone(base) && stepAside(base) == nil {
			err = enable(base, name)
		}
		*have = err == nil && enable(dir, name) == nil
	}
	return c
}

func enable(dir, controller string) error {
	if slices.Contains(words(filepath.Join(dir, "cgroup.subtree_control")), controller) {
		return nil
	}
	return writeControl(dir, "cgroup.subtree_control", "+"+controller)
}

func alone(dir string) bool {
	return slices.Equal(words(filepath.Join(dir, "cgroup.procs")), []string{strconv.Itoa(os.Getpid())})
}

func stepAside(dir string) error {
	leaf := filepath.Join(dir, selfGroup)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return writeControl(leaf, "cgroup.procs", strconv.Itoa(os.Getpid()))
}

// ownCgroup is the directory of this process's cgroup, empty if there is none
// of version 2.
func ownCgroup() string {
	groups, err1 := os.ReadFile("/proc/self/cgroup")
	mounts, err2 := os.ReadFile("/proc/self/mountinfo")
	if err1 != nil || err2 != nil {
		return ""
	}
	return locateCgroup(groups, mounts)
}

// locateCgroup joins the line 0:: of /proc/self/cgroup with where the hierarchy
// is mounted.
func locateCgroup(groups, mounts []byte) string {
	path := ""
	for line := range strings.Lines(string(groups)) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			path = p
		}
	}
	if path == "" {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(mounts))
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(left)
		if !ok || !strings.HasPrefix(right, "cgroup2 ") || len(f) < 5 {
			continue
		}
		root, at := f[3], f[4]
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		return filepath.Join(at, rel)
	}
	return ""
}

func isCgroup(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
	return err == nil
}

// cpuPeriod is that of a cgroup's CPU quota, in microseconds.
const cpuPeriod = 100_000

// make gives a life a cgroup with the limits that it can keep.
func (c cgroups) make(life string, memory, cpuMilli int64) (dir string, memoryKept, cpuKept bool) {
	if c.dir == "" {
		return "", false, false
	}
	dir = filepath.Join(c.dir, life)
	if os.Mkdir(dir, 0o755) != nil {
		return "", false, false
	}
	if memory > 0 && c.memory && writeControl(dir, "memory.max", strconv.FormatInt(memory, 10)) == nil {
		memoryKept = true
		// Neither exists everywhere: without swap accounting, and before Linux 4.19.
		_ = writeControl(dir, "memory.swap.max", "0")
		_ = writeControl(dir, "memory.oom.group", "1")
	}
	if cpuMilli > 0 && c.cpu {
		quota := max(1000, cpuMilli*cpuPeriod/1000)
		cpuKept = writeControl(dir, "cpu.max", strconv.FormatInt(quota, 10)+" "+strconv.Itoa(cpuPeriod)) == nil
	}
	return dir, memoryKept, cpuKept
}

// writeControl writes an interface file, which is never made by writing.
func writeControl(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func words(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// killCgroup kills all in a cgroup at once.
func killCgroup(dir string) {
	if dir != "" {
		_ = writeControl(dir, "cgroup.kill", "1")
	}
}

// keyed reads one number of a file of "name number" lines; 0 without.
func keyed(path, name string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == name {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func oomKills(dir string) int64 {
	if dir == "" {
		return 0
	}
	return keyed(filepath.Join(dir, "memory.events"), "oom_kill")
}

func cgroupEmpty(dir string) bool {
	return dir == "" || keyed(filepath.Join(dir, "cgroup.events"), "populated") == 0
}

// waitCgroupEmpty looks until a killed cgroup is empty, which takes moments.
func waitCgroupEmpty(ctx context.Context, dir string) {
	tick := time.NewTicker(killAgain)
	defer tick.Stop()
	for !cgroupEmpty(dir) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// removeCgroup removes an empty cgroup, those that the life has made below it
// too.
func removeCgroup(dir string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
