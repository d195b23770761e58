package cloud

import (
	"context"
	"log/slog"

	"github.com/edgetwin/sedna/lib/daemon"
)

// Program is the GlobalManager as a daemon.
func Program() daemon.Program[Config] {
	return daemon.Program[Config]{
		Name:    "globalmanager",
		Default: DefaultConfig,
		Check:   (*Config).Check,
		Run: func(ctx context.Context, c Config, log *slog.Logger, ready func(any)) error {
			return Run(ctx, c, log, func(e Endpoints) { ready(e) })
		},
	}
}
