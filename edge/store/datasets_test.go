package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/edge/store"
)

func TestDatasetsRoundTrip(t *testing.T) {
	s := open(t, store.Options{})
	k, other := store.DatasetKey{Namespace: "ns", Name: "d"}, store.DatasetKey{Namespace: "ns", Name: "e"}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	sets := []store.Dataset{{k, []byte("{1}")}, {other, []byte("{2}")}}
	files := []store.DatasetFile{{"a/1", 3, at, "s1", 7, false}, {"a/2", 4, at, "s2", -1, true}}
	segments := []store.DatasetSegment{{k, 0, 5, []byte("h"), "g1", 10}, {k, 5, 2, []byte{}, "g2", 20}}
	consumers := []store.DatasetConsumer{{k, "j1", 3, []byte("{}")}, {k, "j2", 4, []byte("{}")}}
	shards := []store.DatasetShard{{k, "j1", 1, "eval", 0, 3, 1, "x", 30, "x.txt", true}, {k, "j1", 1, "train", 0, 3, 2, "y", 40, "y.txt", false}}
	update(t, s, func(tx *store.Tx) error {
		for range 2 { // the second time over the first
			for _, d := range sets {
				if err := tx.PutDataset(d); err != nil {
					return err
				}
			}
			for i := range files {
				for _, err := range []error{tx.PutDatasetFile(k, files[i]), tx.PutDatasetSegment(segments[i]), tx.PutDatasetConsumer(consumers[i]), tx.PutDatasetShard(shards[i])} {
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	check := func(name string, want any, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	view(t, s, func(tx *store.Tx) error {
		all, err := tx.Datasets()
		check("datasets", sets, all, err)
		one, err := tx.Dataset(k)
		check("dataset", &sets[0], one, err)
		paths, err := tx.DatasetFiles(k, "", 10)
		check("files", files, paths, err)
		behind, err := tx.DatasetFiles(k, "a/1", 10)
		check("files behind one", files[1:], behind, err)
		samples, err := tx.DatasetSamples(k, 7, 10)
		check("samples", files[:1], samples, err)
		file, err := tx.DatasetFile(k, "a/2")
		check("file", &files[1], file, err)
		none, err := tx.DatasetFile(other, "a/2")
		check("no file", (*store.DatasetFile)(nil), none, err)
		segs, err := tx.DatasetSegments(k)
		check("segments", segments, segs, err)
		jobs, err := tx.DatasetConsumers(k)
		check("consumers", consumers, jobs, err)
		got, err := tx.DatasetShards(k, "j1")
		check("shards", shards, got, err)
		names, err := tx.DatasetFileNames()
		check("names", map[string]int64{"g1": 10, "g2": 20, "x.txt": 30}, names, err)
		a, b, err := tx.DatasetBytes()
		check("bytes", [2]int64{30, 30}, [2]int64{a, b}, err)
		return nil
	})
	update(t, s, func(tx *store.Tx) error { return tx.DeleteDatasetSegments(k, 6) })
	update(t, s, func(tx *store.Tx) error { return tx.PruneDatasetShards(k, "j1", 2) })
	update(t, s, func(tx *store.Tx) error { return tx.DeleteDatasetConsumer(k, "j2") })
	view(t, s, func(tx *store.Tx) error {
		segs, err := tx.DatasetSegments(k)
		check("segments left", segments[1:], segs, err)
		got, err := tx.DatasetShards(k, "j1")
		check("shards left", shards[:1], got, err)
		jobs, err := tx.DatasetConsumers(k)
		check("consumers left", consumers[:1], jobs, err)
		return nil
	})
	update(t, s, func(tx *store.Tx) error { return tx.DeleteDataset(k) })
	view(t, s, func(tx *store.Tx) error {
		all, err := tx.Datasets()
		check("datasets left", sets[1:], all, err)
		names, err := tx.DatasetFileNames()
		check("names left", map[string]int64{}, names, err)
		paths, err := tx.DatasetFiles(k, "", 10)
		check("files left", []store.DatasetFile(nil), paths, err)
		return nil
	})
}
