package demo

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ask sends samples over HTTP, one at a time.
func (r *run) ask(ctx context.Context, phase string, samples []Sample) ([]Answer, error) {
	var out []Answer
	for _, s := range samples {
		a, err := post(ctx, http.DefaultClient, r.inferURL(), s, phase)
		if err != nil {
			return out, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (r *run) inferURL() string { return "http://" + r.http + "/v2/models/digits/infer" }

// firstAnswer asks the first sample that the edge model gets right, until the
// answer is right, and notes when that was.
func (r *run) firstAnswer(ctx context.Context, deadline time.Time) error {
	c := &http.Client{Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := post(ctx, c, r.inferURL(), r.samples[0], "")
		if err == nil && a.Final == a.Label {
			r.answeredAt = time.Now()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no right answer in time: last %+v, %w", a, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cloudBack waits until the LocalController's probe has found the cloud again.
func (r *run) cloudBack(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, s := range r.samples {
			a, err := post(ctx, http.DefaultClient, r.inferURL(), s, "")
			if err != nil {
				return err
			}
			if fromCloud(a) {
				return nil
			}
			if a.Fallback != "" {
				break
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the LocalController did not find the cloud again within a minute")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bytesToCloud reads from the LocalController's metrics how many bytes a
// service has sent to the cloud.
func (r *run) bytesToCloud(ctx context.Context, service string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if ok && strings.HasPrefix(name, "sedna_cloud_bytes_total{") &&
			strings.Contains(name, `service="`+service+`"`) && strings.Contains(name, `direction="sent"`) {
			v, err := strconv.ParseFloat(value, 64)
			return int64(v), err
		}
	}
	return 0, lines.Err()
}
