package edge

import (
	"context"
	"log/slog"

	"github.com/edgetwin/sedna/lib/daemon"
)

// Program is the LocalController as a daemon. Its binary's main must call
// model.LoadTestMain first.
func Program() daemon.Program[Config] {
	return daemon.Program[Config]{
		Name:    "localcontroller",
		Default: DefaultConfig,
		Check:   (*Config).Check,
		Run: func(ctx context.Context, cfg Config, log *slog.Logger, ready func(any)) error {
			return Run(ctx, cfg, Deps{Log: log, Ready: func(e Endpoints) { ready(e) }})
		},
	}
}
