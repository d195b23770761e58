package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/dataset/format"
	"github.com/edgetwin/sedna/lib/storage"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// TestSplitDoesNotDependOnWhen has the same data noticed all at once and bit by
// bit: each sample is on the same side.
func TestSplitDoesNotDependOnWhen(t *testing.T) {
	side := func(pieces int) map[string]bool {
		w := newWorld(t, "csv")
		w.write("id,label\n")
		w.start()
		w.register("job", Consumer{TrainProb: 0.7, Seed: 5})
		out := map[string]bool{}
		for i := range pieces {
			var b strings.Builder
			for n := i * 600 / pieces; n < (i+1)*600/pieces; n++ {
				fmt.Fprintf(&b, "%d,class%d\n", n, n%3)
			}
			w.append(b.String())
			w.look()
			r, err := w.m.Take(t.Context(), set, "job", int64(i+1), 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []Shard{r.Train, r.Eval} {
				text := lines(t, s.Path)
				if len(text) > 0 && text[0] != "id,label" || int64(max(len(text)-1, 0)) != s.Samples {
					t.Errorf("%d samples, %q", s.Samples, text)
				}
				for _, line := range text[min(1, len(text)):] {
					out[line] = s == r.Train
				}
			}
		}
		return out
	}
	once, often := side(1), side(7)
	if diff := cmp.Diff(once, often); diff != "" || len(once) != 600 {
		t.Error(len(once), diff)
	}
	train := 0
	for line, in := range once {
		if in {
			train++
		}
		if in != format.InTrain(5, []byte(line), 0.7) {
			t.Errorf("%q", line)
		}
	}
	if train < 370 || train > 470 {
		t.Errorf("%d of 600 train", train)
	}
}

// TestRounds has the reference system's split: the first of the new samples
// train, and the newest evaluation shards make up the evaluation set.
func TestRounds(t *testing.T) {
	w := newWorld(t, "txt")
	w.limits = Limits{EvalShards: 2, TrainShards: 2}
	w.start()
	w.register("job", Consumer{TrainProb: 0.8, Mode: Sequential})
	ctx := t.Context()
	if _, err := w.m.Take(ctx, set, "job", 1, 0); !wire.IsCode(err, wire.FailedPrecondition) {
		t.Error(err)
	}
	var rounds []Round
	for i := range 4 {
		w.append(numbered(10*i, 10*i+9))
		w.look()
		if n, err := w.m.Pending(ctx, set, "job"); n != 9 || err != nil {
			t.Error(n, err)
		}
		r, err := w.m.Take(ctx, set, "job", int64(i+1), 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(split(numbered(10*i, 10*i+7)), lines(t, r.Train.Path)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(split(numbered(10*i+7, 10*i+9)), lines(t, r.Eval.Path)); diff != "" {
			t.Error(diff)
		}
		for _, s := range append(r.EvalSet, r.Train) {
			b, err := os.ReadFile(s.Path)
			sum := sha256.Sum256(b)
			if err != nil || int64(len(b)) != s.Size || hex.EncodeToString(sum[:]) != s.SHA256 || filepath.Ext(s.Path) != ".txt" {
				t.Errorf("%+v %v", s, err)
			}
		}
		again, err := w.m.Take(ctx, set, "job", int64(i+1), 0)
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Error(err, diff)
		}
		rounds = append(rounds, r)
	}
	if got := rounds[3].EvalSet; len(got) != 2 || got[0].Round != 3 || got[1].Round != 4 {
		t.Errorf("%+v", got)
	}
	if _, err := w.m.Take(ctx, set, "job", 2, 0); err != nil { // remembered, although its files went
		t.Error(err)
	}
	for i, r := range rounds {
		_, trainErr := os.Stat(r.Train.Path)
		_, evalErr := os.Stat(r.Eval.Path)
		if kept := i >= 2; (trainErr == nil) != kept || (evalErr == nil) != kept {
			t.Errorf("round %d: %v %v", i+1, trainErr, evalErr)
		}
	}
	if err := w.m.Release(ctx, set, "job", 4); err != nil {
		t.Error(err)
	}
	if r, err := w.m.Round(ctx, set, "job", 4); err != nil || r.Train.Path != "" || r.Eval.Path == "" || r.Samples() != 9 {
		t.Errorf("%+v %v", r, err)
	}
	w.append(numbered(100, 110))
	w.look()
	if _, err := w.m.Take(ctx, set, "job", 4, 0); err != nil {
		t.Error(err)
	}
	if r, err := w.m.Take(ctx, set, "job", 7, 4); err != nil || r.Samples() != 4 {
		t.Error(r, err)
	}
	if _, err := w.m.Take(ctx, set, "job", 6, 0); !wire.IsCode(err, wire.FailedPrecondition) {
		t.Error(err)
	}
	if _, err := w.m.Round(ctx, set, "job", 6); !wire.IsCode(err, wire.NotFound) {
		t.Error(err)
	}
	if n, err := w.m.Pending(ctx, set, "job"); n != 6 || err != nil {
		t.Error(n, err)
	}
	if err := w.m.Unregister(ctx, set, "job"); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(w.m.spool.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStatusOfTable(t *testing.T) {
	w := newWorld(t, "csv")
	w.label = "kind"
	w.write("\xef\xbb\xbfv,kind\r\n1,a\r\n3,\"b\r\nc\"\r\nx\r\n5,a\r\n7")
	w.start()
	s := w.look()
	if !s.Ready || s.Samples != 3 || s.Stats.Bad != 1 || s.Waiting != 1 || s.Contents != 1 || s.LookedAt.IsZero() || s.GrewAt.IsZero() {
		t.Errorf("%+v", s)
	}
	if c := s.Stats.Columns[0]; c.Name != "v" || c.Mean != 3 || c.Variance() != 4 || s.Stats.Classes["a"] != 2 || s.Stats.BadRows[0].Line != 5 {
		t.Errorf("%+v", s.Stats)
	}
	// Other columns after a rotation: rounds do not mix them.
	w.register("job", Consumer{TrainProb: 1})
	w.look()
	w.rename(w.path + ".1")
	w.write("a,b,c\n1,2,3\n")
	w.look()
	for i, want := range [][]string{{"v,kind", "1,a", "3,\"b\r", "c\"", "5,a"}, {"a,b,c", "1,2,3"}} {
		r, err := w.m.Take(t.Context(), set, "job", int64(i+1), 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, lines(t, r.Train.Path)); diff != "" {
			t.Error(diff)
		}
	}
	all, err := w.m.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Samples != 1 || all[0].Total != 4 {
		t.Errorf("%+v %v", all, err)
	}
}

func TestQuota(t *testing.T) {
	w := newWorld(t, "txt")
	w.limits = Limits{QuotaBytes: 8000, SegmentBytes: 1000}
	want := numbered(0, 1000)
	w.write(want)
	w.start()
	w.register("job", Consumer{TrainProb: 1})
	if s := w.look(); s.Reason != Full || s.Ready {
		t.Errorf("%+v", s)
	}
	var got []string
	for round := int64(1); len(got) < 1000; round++ {
		r, err := w.m.Take(t.Context(), set, "job", round, 100)
		if err != nil {
			t.Fatal(round, err)
		}
		got = append(got, lines(t, r.Train.Path)...)
		w.look()
	}
	if diff := cmp.Diff(split(want), got); diff != "" {
		t.Error(diff)
	}
	if s := w.look(); !s.Ready || s.Samples != 1000 {
		t.Errorf("%+v", s)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t, "txt")
	w.write("a\n")
	w.start()
	ctx := t.Context()
	outside := filepath.Join(t.TempDir(), "x.txt")
	if err := os.WriteFile(outside, []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(w.root, "link.txt")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec task.Dataset
		code wire.Code
	}{
		{task.Dataset{URL: outside, Format: "txt"}, wire.PermissionDenied},
		{task.Dataset{URL: w.root + "/../x.txt", Format: "txt"}, wire.PermissionDenied},
		{task.Dataset{URL: "https://h/x.txt", Format: "txt"}, wire.Unimplemented},
		{task.Dataset{URL: w.path, Format: "pdf"}, wire.UnsupportedMedia},
	} {
		if err := w.m.Ensure(ctx, Key{Namespace: "default", Name: "other"}, c.spec); !wire.IsCode(err, c.code) {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
	for url, code := range map[string]wire.Code{link: wire.PermissionDenied, w.root: wire.InvalidArgument} {
		k := Key{Namespace: "default", Name: "refused"}
		if err := w.m.Ensure(ctx, k, task.Dataset{URL: url, Format: "txt"}); err != nil {
			t.Fatal(err)
		}
		err := w.m.Look(ctx, k)
		if s, serr := w.m.Status(ctx, k); !wire.IsCode(err, code) || serr != nil || s.Ready || s.Samples != 0 {
			t.Errorf("%s: %v, %+v %v", url, err, s, serr)
		}
	}
	for _, err := range []error{
		w.m.Look(ctx, Key{Namespace: "default", Name: "none"}), w.m.Register(ctx, Key{Namespace: "default", Name: "none"}, "job", Consumer{}),
		func() error { _, err := w.m.Status(ctx, Key{Namespace: "default", Name: "none"}); return err }(),
		func() error { _, err := w.m.Take(ctx, set, "none", 1, 0); return err }(),
	} {
		if !wire.IsCode(err, wire.NotFound) {
			t.Error(err)
		}
	}
	for field, c := range map[string]Consumer{"dataset.trainProb": {TrainProb: 1.1}, "dataset.split": {Mode: "random"}} {
		if err := w.m.Register(ctx, set, "job", c); !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != field {
			t.Error(err)
		}
	}
}

func TestOtherSpecAndStop(t *testing.T) {
	w := newWorld(t, "txt")
	w.write(numbered(0, 5))
	w.start()
	w.register("job", Consumer{TrainProb: 1})
	w.look()
	if err := os.WriteFile(filepath.Join(w.root, "e.jsonl"), []byte("{\"a\":1}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.path, w.format = filepath.Join(w.root, "e.jsonl"), "jsonl"
	if err := w.m.Ensure(t.Context(), set, task.Dataset{URL: w.path, Format: w.format}); err != nil {
		t.Fatal(err)
	}
	if s := w.look(); s.Samples != 1 || s.Total != 6 || !s.Ready {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff([]string{`{"a":1}`}, w.take("job")); diff != "" {
		t.Error(diff)
	}
	if err := w.m.Stop(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.Status(t.Context(), set); !wire.IsCode(err, wire.NotFound) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(w.m.spool.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := w.m.Stop(t.Context(), set); err != nil {
		t.Error(err)
	}
	w.restart() // made again after a delete
	if s := w.look(); s.Samples != 1 || s.Total != 1 {
		t.Errorf("%+v", s)
	}
}

// TestWatched waits for what the system tells of; the period is an hour.
func TestWatched(t *testing.T) {
	w := newWorld(t, "txt")
	w.limits.Gap = 10 * time.Millisecond
	w.write("")
	changed := make(chan struct{}, 100)
	s, err := store.Open(t.Context(), store.Options{Dir: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := New(t.Context(), Options{Dir: w.dir, Store: s, DataRoots: []string{w.root}, Limits: w.limits, Changed: func(Key) { changed <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Ensure(t.Context(), set, task.Dataset{URL: w.path, Format: "txt", PeriodSeconds: 3600}); err != nil {
		t.Fatal(err)
	}
	if err := m.Look(t.Context(), set); err != nil { // now it is watched
		t.Fatal(err)
	}
	wait := func(n int64) {
		t.Helper()
		for {
			if s, err := m.Status(t.Context(), set); err != nil || s.Samples == n {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			select {
			case <-changed:
			case <-time.After(20 * time.Second):
				t.Fatalf("nobody has noticed %d samples", n)
			}
		}
	}
	w.append(numbered(0, 3))
	wait(3)
	w.rename(w.path + ".1")
	w.write(numbered(3, 4))
	wait(4)
}

func TestImages(t *testing.T) {
	w := newWorld(t, "images")
	w.clock.Store(int64(time.Minute)) // all files are old enough to be whole
	picture := func(shade byte) []byte {
		img := image.NewGray(image.Rect(0, 0, 4, 4))
		for i := range img.Pix {
			img.Pix[i] = shade
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	put := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(w.path, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	line := func(name string) string { return filepath.Join(w.path, name) + " " + filepath.Dir(name) }
	for i := range 600 {
		put(fmt.Sprintf("cat/%04d.png", i), picture(byte(i)))
	}
	put("dog/1.png", picture(3))
	put("dog/notes.txt", []byte("not a picture"))
	put("dog/a b.png", picture(9))
	put("dog/.hidden", []byte("x"))
	put("loose.png", picture(1))
	w.start()
	if s := w.look(); s.Samples != 601 || s.Stats.Bad != 2 || s.Stats.Classes["cat"] != 600 || s.Stats.Classes["dog"] != 1 || !s.Ready {
		t.Errorf("%+v", s)
	}
	w.register("job", Consumer{TrainProb: 1})
	w.look()
	got := w.take("job")
	if len(got) != 601 || !slices.Contains(got, line("dog/1.png")) || !slices.Contains(got, line("cat/0000.png")) {
		t.Errorf("%d lines, %q", len(got), got[:min(3, len(got))])
	}
	// Removed, touched, changed, new.
	if err := os.Remove(filepath.Join(w.path, "cat/0000.png")); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(w.path, "cat/0001.png"), later, later); err != nil {
		t.Fatal(err)
	}
	put("cat/0002.png", append(picture(2), 0))
	put("cow/1.png", picture(8))
	w.restart()
	if s := w.look(); s.Samples != 601 || s.Stats.Classes["cat"] != 599 || s.Stats.Classes["cow"] != 1 {
		t.Errorf("%+v", s.Stats)
	}
	if diff := cmp.Diff([]string{line("cat/0002.png"), line("cow/1.png")}, w.take("job")); diff != "" {
		t.Error(diff)
	}
	put("cat/0000.png", picture(0)) // back as it was
	if s := w.look(); s.Samples != 602 {
		t.Errorf("%+v", s)
	}
	if more := w.take("job"); more != nil {
		t.Error(more)
	}
	w.clock.Store(0)
	put("cow/2.png", picture(4)) // may still be written
	if s := w.look(); s.Samples != 602 {
		t.Errorf("%+v", s)
	}
	w.clock.Store(int64(time.Minute))
	if s := w.look(); s.Samples != 603 {
		t.Errorf("%+v", s)
	}
	if err := os.Rename(w.path, w.path+".away"); err != nil {
		t.Fatal(err)
	}
	if s := w.look(); s.Reason != Missing || s.Samples != 603 {
		t.Errorf("%+v", s)
	}
}

func TestRemote(t *testing.T) {
	var mu sync.Mutex
	text, fetched := "", 0
	set := func(s string) { mu.Lock(); defer mu.Unlock(); text = s }
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if text == "" {
			http.NotFound(rw, r)
			return
		}
		if r.Method == http.MethodGet {
			fetched++
		}
		sum := sha256.Sum256([]byte(text))
		rw.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
		http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(text))
	}))
	defer server.Close()
	client, err := storage.New(storage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "txt")
	w.source, w.path = NewRemote(client, nil), server.URL+"/d.txt"
	w.start()
	if s := w.look(); s.Reason != NotThere {
		t.Errorf("%+v", s)
	}
	w.register("job", Consumer{TrainProb: 1})
	set(numbered(0, 3) + "sample-3") // whole, as it is
	for range 3 {
		if s := w.look(); s.Samples != 4 || !s.Ready || fetched != 1 {
			t.Errorf("fetched %d times, %+v", fetched, s)
		}
	}
	set(numbered(0, 6))
	w.look()
	w.restart()
	w.look()
	if diff := cmp.Diff(split(numbered(0, 6)), w.take("job")); diff != "" || fetched != 2 {
		t.Error(fetched, diff)
	}
	set(numbered(6, 8))
	w.look()
	if diff := cmp.Diff(split(numbered(6, 8)), w.take("job")); diff != "" {
		t.Error(diff)
	}
	set("")
	if s := w.look(); s.Reason != Missing || s.Samples != 2 {
		t.Errorf("%+v", s)
	}
}

func TestS3(t *testing.T) {
	server := s3test.Start(t)
	raw := server.Client(t)
	put := func(text string) {
		t.Helper()
		if _, err := raw.Client.PutObject(t.Context(), s3test.Bucket, "a/d.txt", strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	client, err := storage.New(storage.Config{S3: server.Options()})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "txt")
	w.source, w.path = NewRemote(client, nil), "s3://"+s3test.Bucket+"/a/d.txt"
	w.start()
	if s := w.look(); s.Reason != NotThere {
		t.Errorf("%+v", s)
	}
	w.register("job", Consumer{TrainProb: 1})
	put(numbered(0, 3))
	w.look()
	put(numbered(0, 5))
	if s := w.look(); s.Samples != 5 || s.Contents != 1 {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff(split(numbered(0, 5)), w.take("job")); diff != "" {
		t.Error(diff)
	}
}

// TestConcurrent has a writer, looks, rounds and registrations at the same time.
func TestConcurrent(t *testing.T) {
	w := newWorld(t, "txt")
	w.limits = Limits{SegmentBytes: 500, Gap: time.Millisecond, TrainShards: 1000}
	w.write("")
	w.start()
	const total = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < total; i += 20 {
			w.append(numbered(i, i+20))
		}
	})
	for _, job := range []string{"a", "b", "c"} {
		wg.Go(func() {
			if err := w.m.Register(context.Background(), set, job, Consumer{TrainProb: 1}); err != nil {
				t.Error(err)
				return
			}
			var got []string
			for round := int64(1); len(got) < total; round++ {
				if err := w.m.Look(context.Background(), set); err != nil {
					t.Error(err)
					return
				}
				r, err := w.m.Take(context.Background(), set, job, round, 0)
				if wire.IsCode(err, wire.FailedPrecondition) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				b, err := os.ReadFile(r.Train.Path)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, split(string(b))...)
			}
			if diff := cmp.Diff(split(numbered(0, total)), got); diff != "" {
				t.Errorf("job %s: %s", job, diff)
			}
		})
	}
	wg.Wait()
}

// BenchmarkGrowth reads a file that has grown by 32 MiB, with a job that takes
// it and without.
func BenchmarkGrowth(b *testing.B) {
	var text bytes.Buffer
	rng := rand.New(rand.NewPCG(1, 2))
	for text.Len() < 32<<20 {
		fmt.Fprintf(&text, "%d,%.3f,%.2f,class%d\n", text.Len(), 20+rng.NormFloat64(), rng.Float64(), rng.IntN(7))
	}
	for _, jobs := range []int{0, 1} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			w := newWorld(b, "csv")
			w.write("id,a,b,label\n")
			w.start()
			for range jobs {
				w.register("job", Consumer{TrainProb: 0.8})
			}
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				w.append(text.String())
				b.StartTimer()
				if err := w.m.Look(context.Background(), set); err != nil {
					b.Fatal(err)
				}
				if jobs > 0 {
					w.take("job")
				}
			}
		})
	}
}
