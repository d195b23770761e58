// Package daemon is what the mains of GlobalManager, LocalController and
// mapper share: --config and --check-config, logging, signals, the ready line
// and exit codes.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/wire"
)

// Exit codes of every command.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2 // usage or configuration
)

// Program is one daemon with configuration C.
type Program[C any] struct {
	Name    string
	Default func() C
	// Check says what is wrong with a configuration; nil checks nothing.
	Check func(*C) error
	// Run works until ctx ends. It calls ready once, with what a user may want
	// to connect to; that is printed as JSON behind the word "ready".
	Run func(ctx context.Context, cfg C, log *slog.Logger, ready func(any)) error
}

// Main runs the program with the process's arguments, environment and signals,
// and gives its exit code.
func Main[C any](p Program[C]) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, p, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
}

// Run runs the program and gives its exit code.
func Run[C any](ctx context.Context, p Program[C], args, environ []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	file := fs.String("config", "", "YAML `FILE` with settings; every setting can also be given as SEDNA_… in the environment")
	check := fs.Bool("check-config", false, "check the configuration, print it with its defaults and stop")
	version := fs.Bool("version", false, "print the version and stop")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return ExitDone
		}
		return ExitUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", p.Name, fs.Arg(0))
		return ExitUsage
	}
	if *version {
		fmt.Fprintln(stdout, p.Name, wire.Version)
		return ExitDone
	}
	cfg := p.Default()
	err := config.Load(*file, &cfg, environ)
	if err == nil && p.Check != nil {
		err = p.Check(&cfg)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return ExitUsage
	}
	if *check {
		fmt.Fprint(stdout, config.Describe(cfg))
		return ExitDone
	}
	log := Logger(stderr).With("part", p.Name)
	if err := p.Run(ctx, cfg, log, func(v any) { PrintReady(stdout, v) }); err != nil && !errors.Is(err, context.Canceled) {
		log.Error("stopped", "error", err)
		return ExitFailed
	}
	return ExitDone
}

// PrintReady prints the line by which others know that a program is ready.
func PrintReady(w io.Writer, endpoints any) {
	b, err := json.Marshal(endpoints)
	if err != nil {
		b = []byte("{}")
	}
	fmt.Fprintf(w, "ready %s\n", b)
}

// Logger writes text to terminals and JSON to everything else.
func Logger(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, nil))
		}
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}

// AtLeast passes on what is of level or above: for libraries that tell more
// than their users want to know.
func AtLeast(level slog.Level, h slog.Handler) slog.Handler { return atLeast{level, h} }

type atLeast struct {
	level slog.Level
	slog.Handler
}

func (a atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= a.level && a.Handler.Enabled(ctx, l)
}

func (a atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{a.level, a.Handler.WithAttrs(attrs)}
}

func (a atLeast) WithGroup(name string) slog.Handler {
	return atLeast{a.level, a.Handler.WithGroup(name)}
}
