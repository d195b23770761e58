package standalone

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // counts what the LocalController's database still holds

	"github.com/edgetwin/sedna/lib/bus"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

// Traces says where to look for what deleted work must not leave.
type Traces struct {
	Kube     Kube
	MQTT     string // host:port of the node's bus
	Node     string
	LocalDir string // the LocalController's data
	CloudDir string // the GlobalManager's data
}

// Left lists what is left behind: Devices and their statuses, retained
// messages, database rows, model files and blobs. Since deletion takes effect
// by and by, it looks again until nothing is left, for some seconds. The node's
// own Device stays, since the node stays; tombstones stay, since they keep old
// documents from coming back.
func (t Traces) Left(ctx context.Context) ([]string, error) {
	const longest = 15 * time.Second
	deadline := time.Now().Add(longest)
	for {
		var left []string
		for _, look := range []func(context.Context) ([]string, error){t.devices, t.retained, t.rows, t.files} {
			l, err := look(ctx)
			if err != nil {
				return nil, err
			}
			left = append(left, l...)
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t Traces) devices(ctx context.Context) ([]string, error) {
	var left []string
	var ds devices.DeviceList
	var sts devices.DeviceStatusList
	if err := errors.Join(t.Kube.List(ctx, &ds), t.Kube.List(ctx, &sts)); err != nil {
		return nil, err
	}
	own := task.NodeDeviceName(t.Node)
	for _, d := range ds.Items {
		if d.Name != own {
			left = append(left, "Device "+d.Name)
		}
	}
	for _, s := range sts.Items {
		if s.Name != own {
			left = append(left, "DeviceStatus "+s.Name)
		}
	}
	return left, nil
}

// retained lists retained messages. The broker sends all that match before it
// passes on the marker that is published afterwards.
func (t Traces) retained(ctx context.Context) ([]string, error) {
	c, err := bus.New(bus.Options{URL: "tcp://" + t.MQTT, ClientID: "example-look", CleanSession: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	const marker = "example/marker"
	var left []string
	seen := make(chan struct{})
	// One subscription, so that the marker comes after everything else.
	c.Subscribe("#", 1, func(m bus.Message) {
		switch {
		case m.Topic == marker:
			close(seen)
		case m.Retained && !strings.Contains(m.Topic, "/"+task.NodeDeviceName(t.Node)+"/"):
			left = append(left, "retained "+m.Topic)
		}
	})
	published := make(chan error, 1)
	c.OnConnect(func() {
		select {
		case published <- c.Publish(ctx, marker, 1, false, []byte("x")):
		default:
		}
	})
	c.Start(ctx)
	if err := <-published; err != nil {
		return nil, err
	}
	select {
	case <-seen:
		return left, nil
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("the bus did not pass on a marker within 10 s")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t Traces) rows(ctx context.Context) ([]string, error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.LocalDir, "sedna.db")+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var left []string
	for _, table := range []string{"tasks", "models"} {
		var n int
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return nil, fmt.Errorf("count %s: %w", table, err)
		}
		for range n {
			left = append(left, "row of "+table)
		}
	}
	return left, nil
}

func (t Traces) files(context.Context) ([]string, error) {
	var left []string
	for kind, dir := range map[string]string{"model file": filepath.Join(t.LocalDir, "models"), "blob": filepath.Join(t.CloudDir, "blobs")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && e.Name() != "lock" {
				left = append(left, kind+" "+e.Name())
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return left, nil
}
