package mapper

import (
	"context"
	"log/slog"

	"github.com/edgetwin/sedna/lib/daemon"
)

// Program is the mapper as a daemon.
func Program() daemon.Program[Config] {
	return daemon.Program[Config]{
		Name:    "mapper",
		Default: Default,
		Check:   Check,
		Run: func(ctx context.Context, c Config, log *slog.Logger, ready func(any)) error {
			return Run(ctx, c, log, func(e Endpoints) { ready(e) })
		},
	}
}
