package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/edge/store"
)

func TestWorkersRoundTrip(t *testing.T) {
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	full := &store.Worker{
		UID: "u", Name: "b", Generation: 3, Request: []byte(`{}`), Phase: "Running", Reason: "r", Detail: "d", Restarts: 4, Failures: 2, NextAt: at,
		Life: "l", LifeHash: "h", Capability: "c", BootID: "boot", PID: 7, StartTicks: 1 << 40, Cgroup: "/sys/x", LimitedBy: "cgroup", Relays: []int{1, 2},
		StartedAt: at.Add(time.Second), EndedAt: at.Add(time.Hour), ExitCode: 143, Result: []byte(`{"metrics":{}}`),
	}
	bare := &store.Worker{UID: "u", Name: "a", Request: []byte(`{}`)}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		for _, w := range []*store.Worker{full, bare, full} {
			if err := tx.PutWorker(w); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx *store.Tx) error {
		all, err := tx.Workers()
		if diff := cmp.Diff([]*store.Worker{bare, full}, all); err != nil || diff != "" {
			t.Error(err, diff)
		}
		one, err := tx.Worker("u", "b")
		if diff := cmp.Diff(full, one); err != nil || diff != "" {
			t.Error(err, diff)
		}
		none, err := tx.Worker("u", "c")
		if err != nil || none != nil {
			t.Error(none, err)
		}
		return nil
	})
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.DeleteWorker("u", "b") }); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx *store.Tx) error {
		all, err := tx.Workers()
		if err != nil || len(all) != 1 {
			t.Error(all, err)
		}
		return nil
	})
}
