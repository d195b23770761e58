package dataset

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFileHistories says what comes of what is done to a file: what a job that
// trains on everything gets in each round, how many samples there are, and what
// is said.
func TestFileHistories(t *testing.T) {
	big := numbered(0, 2000) // longer than the windows by which a file is known
	for _, c := range []struct {
		name    string
		do      []func(w *world)
		want    []string // of all rounds, in order
		samples int64
		reasons []string
		reason  string
	}{
		{
			name:    "append",
			do:      []func(w *world){func(w *world) { w.write(numbered(0, 3)) }, func(w *world) { w.append(numbered(3, 5)) }, func(*world) {}},
			want:    split(numbered(0, 5)),
			samples: 5, reasons: []string{Found},
		},
		{
			name:    "not there at first",
			do:      []func(w *world){func(*world) {}, func(w *world) { w.write(numbered(0, 2)) }},
			want:    split(numbered(0, 2)),
			samples: 2, reasons: []string{Found},
		},
		{
			name:    "half a line",
			do:      []func(w *world){func(w *world) { w.write("sample-0\nsam") }, func(w *world) { w.append("ple-1\nsample") }, func(w *world) { w.append("-2\n") }},
			want:    split(numbered(0, 3)),
			samples: 3, reasons: []string{Found},
		},
		{
			name: "a last line without end, after a while",
			do: []func(w *world){
				func(w *world) { w.write("sample-0\nsample-1") },
				func(w *world) { w.clock.Store(int64(time.Hour)) },
				func(w *world) { w.append("\nsample-2\n") },
			},
			want:    split(numbered(0, 3)),
			samples: 3, reasons: []string{Found},
		},
		{
			name: "a line that goes on after it was taken",
			do: []func(w *world){
				func(w *world) { w.write("sample-0\nsample-1"); w.clock.Store(int64(time.Hour)) },
				func(w *world) { w.append("x\nsample-2\n") },
			},
			want:    split(numbered(0, 3)),
			samples: 3, reasons: []string{Found, BadRows},
		},
		{
			name:    "truncated to nothing and written again",
			do:      []func(w *world){func(w *world) { w.write(numbered(0, 3)) }, func(w *world) { w.truncate(0) }, func(w *world) { w.append(numbered(3, 5)) }},
			want:    split(numbered(0, 5)),
			samples: 2, reasons: []string{Found, Truncated},
		},
		{
			name: "truncated to a begin of what was read",
			do: []func(w *world){
				func(w *world) { w.write(big) }, func(w *world) { w.truncate(int64(len(numbered(0, 1500)))) },
				func(w *world) { w.append(numbered(2000, 2002)) },
			},
			want:    append(split(big), split(numbered(2000, 2002))...),
			samples: 1502, reasons: []string{Found, Truncated},
		},
		{
			name:    "truncated, and longer than before at the next look",
			do:      []func(w *world){func(w *world) { w.write(numbered(0, 3)) }, func(w *world) { w.write(numbered(3, 9)) }},
			want:    split(numbered(0, 9)),
			samples: 6, reasons: []string{Found, Replaced},
		},
		{
			name: "truncated within a line",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 3)) }, func(w *world) { w.truncate(12) },
				func(w *world) { w.append("rest\nsample-3\n") },
			},
			want:    split(numbered(0, 4)),
			samples: 3, reasons: []string{Found, Truncated, BadRows},
		},
		{
			name: "rotated",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 3)) },
				func(w *world) { w.append(numbered(3, 5)); w.rename(w.path + ".1"); w.write(numbered(5, 6)) },
				func(w *world) { w.append(numbered(6, 8)) },
			},
			want:    split(numbered(0, 8)),
			samples: 8, reasons: []string{Found, Rotated},
		},
		{
			name: "rotated while nobody looks",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 3)) },
				func(w *world) {
					w.stop()
					w.append(numbered(3, 5))
					w.rename(w.path + ".1")
					w.write(numbered(5, 6))
					w.start()
				},
			},
			want:    split(numbered(0, 6)),
			samples: 6, reasons: []string{Found, Rotated},
		},
		{
			name: "rotated, and the writer goes on with the old file for a while",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 2)) },
				func(w *world) { w.rename(w.path + ".1"); w.write("") },
				func(w *world) { w.appendTo(w.path+".1", numbered(2, 4)) },
				func(w *world) { w.appendTo(w.path+".1", "sample-4"); w.append(numbered(5, 6)) },
			},
			want:    split(numbered(0, 6)),
			samples: 6, reasons: []string{Found, Rotated},
		},
		{
			name: "renamed, and the new one comes later",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 2)) },
				func(w *world) { w.append(numbered(2, 3)); w.rename(w.path + ".1") },
				func(w *world) { w.write(numbered(3, 4)) },
			},
			want:    split(numbered(0, 4)),
			samples: 4, reasons: []string{Found, Missing, Returned, Rotated},
		},
		{
			name:    "replaced by other content",
			do:      []func(w *world){func(w *world) { w.write(numbered(0, 3)) }, func(w *world) { w.replace(numbered(3, 5)) }},
			want:    split(numbered(0, 5)),
			samples: 2, reasons: []string{Found, Replaced},
		},
		{
			name:    "written anew by an editor, with more",
			do:      []func(w *world){func(w *world) { w.write(big) }, func(w *world) { w.replace(big + numbered(2000, 2003)) }},
			want:    append(split(big), split(numbered(2000, 2003))...),
			samples: 2003, reasons: []string{Found, Continued},
		},
		{
			name: "the same begin and end, but not the same",
			do: []func(w *world){
				func(w *world) { w.write(big) },
				func(w *world) { w.replace(strings.Replace(big, "sample-1000\n", "SAMPLE-1000\n", 1)) },
			},
			want:    append(split(big), split(strings.Replace(big, "sample-1000\n", "SAMPLE-1000\n", 1))...),
			samples: 2000, reasons: []string{Found, Replaced},
		},
		{
			name: "replaced with lines before that nobody has seen",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 2)) },
				func(w *world) { w.append(numbered(2, 3)); w.replace(numbered(3, 4)) },
			},
			want:    split(numbered(0, 4)),
			samples: 1, reasons: []string{Found, Replaced},
		},
		{
			name:    "deleted",
			do:      []func(w *world){func(w *world) { w.write(numbered(0, 2)) }, func(w *world) { w.append(numbered(2, 3)); w.remove() }, func(*world) {}},
			want:    split(numbered(0, 3)),
			samples: 3, reasons: []string{Found, Missing}, reason: Missing,
		},
		{
			name: "deleted and back as it was, with more",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 2)) }, func(w *world) { w.remove() },
				func(w *world) { w.write(numbered(0, 3)) },
			},
			want:    split(numbered(0, 3)),
			samples: 3, reasons: []string{Found, Missing, Returned, Continued},
		},
		{
			name: "moved away and back",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 2)) },
				func(w *world) { w.rename(w.path + ".away") },
				func(w *world) { _ = os.Rename(w.path+".away", w.path); w.append(numbered(2, 3)) },
			},
			want:    split(numbered(0, 3)),
			samples: 3, reasons: []string{Found, Missing, Returned},
		},
		{
			name: "touched",
			do: []func(w *world){
				func(w *world) { w.write(numbered(0, 2)) },
				func(w *world) { _ = os.Chtimes(w.path, time.Now(), time.Now().Add(time.Minute)) },
			},
			want:    split(numbered(0, 2)),
			samples: 2, reasons: []string{Found},
		},
	} {
		for _, restart := range []bool{false, true} {
			name := c.name
			if restart {
				name += ", restarted in between"
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, "txt")
				w.limits.SegmentBytes = 4 << 10
				w.start()
				w.register("job", Consumer{TrainProb: 1})
				var got []string
				var s Status
				for _, do := range c.do {
					do(w)
					s = w.look()
					got = append(got, w.take("job")...)
					if restart && !strings.HasPrefix(c.name, "deleted") && !strings.HasPrefix(c.name, "replaced with") {
						w.restart()
					}
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if s.Samples != c.samples || s.Reason != c.reason {
					t.Errorf("%d samples, expected %d; reason %q", s.Samples, c.samples, s.Reason)
				}
				// The first look came before the file.
				if diff := cmp.Diff(c.reasons, slices.DeleteFunc(w.reasons(), func(r string) bool { return r == NotThere })); diff != "" {
					t.Error(diff)
				}
				// A job that comes later takes what the file holds, exactly.
				w.register("later", Consumer{TrainProb: 1})
				w.look()
				if s.Reason == "" {
					text, err := os.ReadFile(w.path)
					if err != nil {
						t.Fatal(err)
					}
					later := w.take("later")
					for _, line := range later {
						if !strings.Contains(string(text), line) {
							t.Errorf("the later job got %q", line)
						}
					}
					if bad := int(s.Stats.Bad); len(later) < strings.Count(string(text), "\n")-bad {
						t.Errorf("the later job got %d lines of %q", len(later), text)
					}
				}
				if more := w.take("job"); more != nil {
					t.Errorf("the first job got %d again, %q…", len(more), more[0])
				}
			})
		}
	}
}

func TestReplacedWhileNobodyLooks(t *testing.T) {
	w := newWorld(t, "txt")
	w.write(numbered(0, 2))
	w.start()
	w.register("job", Consumer{TrainProb: 1})
	w.look()
	w.stop()
	w.replace(numbered(2, 4))
	w.start()
	w.look()
	if diff := cmp.Diff(split(numbered(0, 4)), w.take("job")); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(w.reasons(), Replaced) {
		t.Error(w.reasons())
	}
}
