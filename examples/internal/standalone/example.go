package standalone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Example is the frame of an example: its common flags, its directory and what
// it prints.
type Example struct {
	Sedna   string  // path of the sedna binary
	JSON    string  // file for the figures; empty: none
	Dir     string  // for state and logs; empty: a temporary one, removed after success
	Seed    int64   // makes what uses chance repeatable
	Seconds float64 // that the measurement takes

	Out   io.Writer
	began time.Time
}

// Flags declares the common flags.
func (e *Example) Flags(f *flag.FlagSet, seconds float64) {
	f.StringVar(&e.Sedna, "sedna", filepath.Join("bin", "sedna"), "the sedna binary, a `FILE` that make build leaves")
	f.StringVar(&e.JSON, "json", "", "write the figures to `FILE`")
	f.StringVar(&e.Dir, "data-dir", "", "`directory` for state and logs (default: a temporary one, removed after success)")
	f.Int64Var(&e.Seed, "seed", 1, "makes what uses chance repeatable")
	f.Float64Var(&e.Seconds, "seconds", seconds, "how long to measure")
}

// Main runs an example as a process: f gets the stack and prints its figures.
// It gives the exit code.
func (e *Example) Main(f func(ctx context.Context, s *Stack) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e.Out, e.began = os.Stdout, time.Now()
	if err := e.run(ctx, f); err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		return 1
	}
	return 0
}

func (e *Example) run(ctx context.Context, f func(context.Context, *Stack) error) (err error) {
	dir := e.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sedna-example-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(dir)
			} else {
				fmt.Fprintln(e.Out, "logs are kept in", dir)
			}
		}()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	e.Say("starting the cloud; node %s joins it", NodeName)
	s, err := NewStack(ctx, e.Sedna, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	return f(ctx, s)
}

// Say prints one line with the time since the start.
func (e *Example) Say(format string, args ...any) {
	fmt.Fprintf(e.Out, "%5.1fs  %s\n", time.Since(e.began).Seconds(), fmt.Sprintf(format, args...))
}

// Save writes the figures where they were asked for.
func (e *Example) Save(figures any) error {
	if e.JSON == "" {
		return nil
	}
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(e.JSON, append(b, '\n'), 0o644)
}

// Fill replaces words of a manifest by what is so on this machine: old, new and
// so on. Each has to be there.
func Fill(manifest []byte, oldnew ...string) ([]byte, error) {
	for i := 0; i < len(oldnew); i += 2 {
		if !bytes.Contains(manifest, []byte(oldnew[i])) {
			return nil, fmt.Errorf("the manifest does not have %q", oldnew[i])
		}
		manifest = bytes.ReplaceAll(manifest, []byte(oldnew[i]), []byte(oldnew[i+1]))
	}
	return manifest, nil
}

// Quantile gives the q-quantile of values, 0 of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, min(len(sorted)-1, int(math.Ceil(q*float64(len(sorted))))-1))]
}

// Share is part of all, 0 of none.
func Share(part, all int) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}
