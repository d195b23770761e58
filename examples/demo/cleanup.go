package demo

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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/bus"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// cleanUp deletes services and models, stops the parts and counts what is left.
func (r *run) cleanUp(ctx context.Context) error {
	for _, m := range [][]byte{DigitsManifest, baselinesManifest} {
		if err := r.kube.remove(ctx, m); err != nil {
			return err
		}
	}
	if err := r.kube.DeleteAllOf(ctx, &sedna.Model{}, client.InNamespace("default")); err != nil {
		return err
	}
	const longest = 15 * time.Second
	deadline := time.Now().Add(longest)
	var left []string
	for {
		var err error
		if left, err = r.leftBehind(ctx); err != nil {
			return err
		}
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := r.stop(); err != nil {
		return err
	}
	for _, p := range []*process{r.cloud, r.mapper, r.local} {
		if p.running() {
			left = append(left, "process "+p.name)
		}
	}
	r.report.Cleanup.LeftBehind = len(left)
	r.say("services and models deleted: %d things left behind %s", len(left), strings.Join(left, ", "))
	return nil
}

// leftBehind lists what a deleted job must not leave: Devices and their
// statuses, retained messages, database rows, model files and blobs. The
// node's own Device stays, since the node stays; tombstones stay, since they
// keep old documents from coming back.
func (r *run) leftBehind(ctx context.Context) ([]string, error) {
	var left []string
	for _, look := range []func(context.Context) ([]string, error){r.devicesLeft, r.retainedLeft, r.rowsLeft, r.filesLeft} {
		l, err := look(ctx)
		if err != nil {
			return nil, err
		}
		left = append(left, l...)
	}
	return left, nil
}

func (r *run) devicesLeft(ctx context.Context) ([]string, error) {
	var left []string
	var ds devices.DeviceList
	var sts devices.DeviceStatusList
	if err := errors.Join(r.kube.List(ctx, &ds), r.kube.List(ctx, &sts)); err != nil {
		return nil, err
	}
	own := task.NodeDeviceName(nodeName)
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

// retainedLeft lists retained messages of task Devices. The broker sends all
// that match before it passes on the marker that is published afterwards.
func (r *run) retainedLeft(ctx context.Context) ([]string, error) {
	c, err := bus.New(bus.Options{URL: "tcp://" + r.mqtt, ClientID: "demo-look", CleanSession: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	const marker = "demo/marker"
	var left []string
	seen := make(chan struct{})
	// One subscription, so that the marker comes after everything else.
	c.Subscribe("#", 1, func(m bus.Message) {
		switch {
		case m.Topic == marker:
			close(seen)
		case m.Retained && !strings.Contains(m.Topic, "/"+task.NodeDeviceName(nodeName)+"/"):
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

func (r *run) rowsLeft(ctx context.Context) ([]string, error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(r.localDir(), "sedna.db")+"?mode=ro")
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

func (r *run) filesLeft(context.Context) ([]string, error) {
	var left []string
	for kind, dir := range map[string]string{"model file": filepath.Join(r.localDir(), "models"), "blob": filepath.Join(r.cloudDir(), "blobs")} {
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
