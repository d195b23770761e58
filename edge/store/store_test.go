package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/edge/store"
)

func open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func update(t testing.TB, s *store.Store, f func(*store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s *store.Store, f func(*store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func sample(device string) *store.Task {
	return &store.Task{
		Namespace: "ns", Device: device, UID: "u-" + device, Epoch: 2, Generation: 3, State: "Active", Kind: "K", Name: "n", Role: "edge",
		IssuedAt: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Document: []byte("{doc}"), Signature: "k:s", NonceN: 4,
		Phase: "Running", Stage: "st", Round: 5, Samples: 6, Reason: "R", Progress: "3/10", Metrics: map[string]float64{"a": 0.5}, Model: "m:v:d", Detail: "D", Attempts: 7,
		Serving: []byte("{old}"), ServingSHA256: "s", ModelSHA256: "m", Seq: 8, Acked: 9,
	}
}

func TestRoundTrip(t *testing.T) {
	s := open(t, store.Options{})
	if !s.Fresh() || s.Aside() != "" {
		t.Errorf("fresh %v aside %q", s.Fresh(), s.Aside())
	}
	want := sample("d")
	tomb := &store.Tombstone{UID: "t", Namespace: "ns", Device: "d", Epoch: 1, Generation: 2, IssuedAt: want.IssuedAt, Seq: 3, NonceN: 4}
	model := &store.Model{SHA256: "x", Name: "n", Version: "v", Format: "f", Path: "p", Size: 1, State: store.ModelFetched, Crashes: 2, LoadingSince: want.IssuedAt, LastUsed: want.IssuedAt}
	update(t, s, func(tx *store.Tx) error {
		return errors.Join(tx.PutTask(want), tx.PutTask(sample("e")), tx.Bury(tomb), tx.PutModel(model),
			tx.SetNodeInt(store.NodeBeatSeq, 42), tx.AddEvent(store.Event{Kind: "task", Reason: "r"}))
	})
	view(t, s, func(tx *store.Tx) error {
		got, err := tx.Task("ns", "d")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if none, err := tx.Task("ns", "none"); none != nil || err != nil {
			t.Error(none, err)
		}
		all, err := tx.Tasks()
		if err != nil || len(all) != 2 {
			t.Error(len(all), err)
		}
		gotTomb, err := tx.Tombstone("t")
		if diff := cmp.Diff(tomb, gotTomb); err != nil || diff != "" {
			t.Error(err, diff)
		}
		models, err := tx.Models()
		if diff := cmp.Diff([]*store.Model{model}, models); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if n, err := tx.NodeInt(store.NodeBeatSeq); n != 42 || err != nil {
			t.Error(n, err)
		}
		events, err := tx.Events(10)
		if err != nil || len(events) != 1 || events[0].Reason != "r" {
			t.Error(events, err)
		}
		if err := tx.PutTask(want); err == nil {
			t.Error("a view can write")
		}
		return nil
	})
	failed := errors.New("no")
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.DeleteTask("ns", "d"), failed)
	})
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	view(t, s, func(tx *store.Tx) error {
		if got, _ := tx.Task("ns", "d"); got == nil {
			t.Error("a failed update was kept")
		}
		return nil
	})
}

func TestModesAndLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, store.Options{Dir: dir})
	update(t, s, func(tx *store.Tx) error { return tx.SetNodeInt("x", 1) })
	for name, want := range map[string]os.FileMode{"": 0o700, "sedna.db": 0o600, "sedna.db-wal": 0o600, "sedna.db-shm": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v %v", name, info.Mode(), err)
		}
	}
	if _, err := store.Open(t.Context(), store.Options{Dir: dir}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("second open: %v", err)
	}
}

func TestTombstoneBounds(t *testing.T) {
	now := time.Now()
	s := open(t, store.Options{MaxTombstones: 3, TombstoneAge: time.Hour, Now: func() time.Time { return now }})
	bury := func(uid string, at time.Time) {
		update(t, s, func(tx *store.Tx) error {
			return tx.Bury(&store.Tombstone{UID: uid, Namespace: "n", Device: "d", BuriedAt: at, IssuedAt: at})
		})
	}
	has := func(uid string) (yes bool) {
		view(t, s, func(tx *store.Tx) error {
			v, err := tx.Tombstone(uid)
			yes = v != nil
			return err
		})
		return yes
	}
	bury("expired", now.Add(-2*time.Hour))
	for i := range 3 {
		bury(strconv.Itoa(i), now.Add(time.Duration(i)*time.Second))
	}
	if has("expired") || !has("0") || !has("1") || !has("2") {
		t.Error("at the limit")
	}
	bury("3", now.Add(time.Minute))
	if has("0") || !has("1") || !has("3") {
		t.Error("over the limit the oldest goes")
	}
	view(t, s, func(tx *store.Tx) error {
		last, err := tx.LastBuried("n", "d")
		if err != nil || last == nil || last.UID != "3" {
			t.Error(last, err)
		}
		open, err := tx.Unsettled(now.Add(1500 * time.Millisecond))
		if err != nil || len(open) != 1 || open[0].UID != "3" {
			t.Error("the reports of predecessors wait no more", len(open), err)
		}
		untold, err := tx.Untold("n", "d")
		if err != nil || untold == nil || untold.UID != "3" {
			t.Error(untold, err)
		}
		return nil
	})
}

func TestEventBound(t *testing.T) {
	s := open(t, store.Options{MaxEvents: 5})
	for i := range 9 {
		update(t, s, func(tx *store.Tx) error { return tx.AddEvent(store.Event{Reason: strconv.Itoa(i)}) })
	}
	view(t, s, func(tx *store.Tx) error {
		events, err := tx.Events(100)
		if err != nil || len(events) != 5 || events[0].Reason != "8" || events[4].Reason != "4" {
			t.Error(events, err)
		}
		return nil
	})
}

func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"not a database": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("rubbish ", 2000)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"pages overwritten": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 8192)), 4096); err != nil {
				t.Fatal(err)
			}
		},
		"cut": func(t *testing.T, path string) {
			if err := os.Truncate(path, 5000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := store.Open(t.Context(), store.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			update(t, s, func(tx *store.Tx) error { return tx.PutTask(sample("d")) })
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, s.Path())
			s = open(t, store.Options{Dir: dir})
			if !s.Fresh() || s.Aside() == "" {
				t.Fatalf("fresh %v, aside %q", s.Fresh(), s.Aside())
			}
			if _, err := os.Stat(s.Aside()); err != nil || !strings.HasPrefix(filepath.Base(s.Aside()), "sedna.db.damaged-") {
				t.Error(s.Aside(), err)
			}
			update(t, s, func(tx *store.Tx) error { return tx.PutTask(sample("d")) })
		})
	}
}

func TestNewerSchemaIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// user_version is at byte 60 of the header, big-endian.
	f, err := os.OpenFile(s.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0, 0, 0, 99}, 60); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), store.Options{Dir: dir}); !errors.Is(err, store.ErrNewerSchema) {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*damaged*")); err != nil || len(names) > 0 {
		t.Error(names, err)
	}
}

func TestFull(t *testing.T) {
	s := open(t, store.Options{MaxBytes: 256 << 10})
	big := sample("d")
	big.Document = make([]byte, 512<<10)
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutTask(big) }); !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
	update(t, s, func(tx *store.Tx) error { return tx.PutTask(sample("e")) })
	view(t, s, func(tx *store.Tx) error {
		all, err := tx.Tasks()
		if err != nil || len(all) != 1 {
			t.Error(len(all), err)
		}
		return nil
	})
}

func TestCancelledContext(t *testing.T) {
	s := open(t, store.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, func(tx *store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// killHelper makes the test binary write until it is killed.
const killHelper = "SEDNA_STORE_KILL_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killHelper); dir != "" {
		if err := writeForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForever says each number after it was committed, in two tables at once.
func writeForever(dir string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{Dir: dir})
	if err != nil {
		return err
	}
	var n int64
	if err := s.View(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.NodeInt("n")
		return err
	}); err != nil {
		return err
	}
	for {
		n++
		err := s.Update(ctx, func(tx *store.Tx) error {
			row := sample("d")
			row.Seq = n
			return errors.Join(tx.PutTask(row), tx.SetNodeInt("n", n))
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killHelper+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var said int64
		for range 1 + rnd.IntN(60) {
			if !lines.Scan() {
				t.Fatal("the helper ended")
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		said, err = strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				said = n
			}
		}
		_ = cmd.Wait()
		s, err := store.Open(t.Context(), store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		view(t, s, func(tx *store.Tx) error {
			n, err := tx.NodeInt("n")
			row, err2 := tx.Task("ns", "d")
			if err != nil || err2 != nil || n < said || row == nil || row.Seq != n {
				t.Errorf("said %d, stored %d and %+v (%v, %v)", said, n, row, err, err2)
			}
			return nil
		})
		if s.Aside() != "" {
			t.Error("taken for damaged")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
