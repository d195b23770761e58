package controlplane

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// klog writes through one logger per process, and it may be set only while nobody logs. So it is set once, to a handler
// that looks up the logger of the newest server.
var (
	klogOnce   sync.Once
	klogTarget atomic.Pointer[slog.Logger]
)

func routeKlog(log *slog.Logger) {
	klogTarget.Store(log.With("component", "kubernetes"))
	klogOnce.Do(func() { klog.SetSlogLogger(slog.New(klogHandler{})) })
}

// klogHandler passes errors on to klogTarget and drops the rest, which is Kubernetes talking about itself.
type klogHandler struct {
	attrs []slog.Attr
}

var _ slog.Handler = klogHandler{}

func (klogHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

func (h klogHandler) Handle(ctx context.Context, r slog.Record) error {
	r = r.Clone()
	r.AddAttrs(h.attrs...)
	handler := klogTarget.Load().Handler()
	if !handler.Enabled(ctx, r.Level) {
		return nil
	}
	return handler.Handle(ctx, r)
}

func (h klogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return klogHandler{attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h klogHandler) WithGroup(string) slog.Handler { return h }

// etcdLogger hands etcd's errors to log until closing is set: closing its listeners makes it report each as broken. A
// fatal error panics where etcd would exit, so that startEtcd can return it.
func etcdLogger(log *slog.Logger, closing *atomic.Bool) *zap.Logger {
	core := etcdCore{log: log.With("component", "etcd"), closing: closing}
	return zap.New(core, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// storageVersionRace is what a fresh etcd may log when its version monitor wakes before the first entry is applied. It tries
// again, and the version it would note matters to nobody but an older etcd.
const storageVersionRace = "failed to update storage version"

type etcdCore struct {
	log     *slog.Logger
	closing *atomic.Bool
}

var _ zapcore.Core = etcdCore{}

func (etcdCore) Enabled(level zapcore.Level) bool { return level >= zapcore.ErrorLevel }

func (c etcdCore) With(fields []zapcore.Field) zapcore.Core {
	return etcdCore{log: c.log.With(slogArgs(fields)...), closing: c.closing}
}

func (c etcdCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c etcdCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if !c.closing.Load() && e.Message != storageVersionRace {
		c.log.Error(e.Message, slogArgs(fields)...)
	}
	return nil
}

func (etcdCore) Sync() error { return nil }

func slogArgs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	args := make([]any, 0, 2*len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			args = append(args, f.Key, v)
		}
	}
	return args
}
