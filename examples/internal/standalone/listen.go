package standalone

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

// Listen has f called for each message of the filters, one at a time, until the
// client is closed. It returns when the broker has taken all filters.
func Listen(ctx context.Context, addr, clientID string, filters []string, f func(bus.Message)) (*bus.Client, error) {
	c, err := bus.New(bus.Options{URL: "tcp://" + addr, ClientID: clientID, CleanSession: true})
	if err != nil {
		return nil, err
	}
	var one sync.Mutex
	for _, filter := range filters {
		c.Subscribe(filter, 1, func(m bus.Message) {
			one.Lock()
			defer one.Unlock()
			f(m)
		})
	}
	connected := make(chan struct{}, 1)
	c.OnConnect(func() {
		select {
		case connected <- struct{}{}:
		default:
		}
	})
	c.Start(ctx)
	const longest = 10 * time.Second
	select {
	case <-connected:
		return c, nil
	case <-time.After(longest):
		err = fmt.Errorf("no connection to the bus at %s within %s", addr, longest)
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.Close()
	return nil, err
}

// Result is an answer of a service, or an error, as it came over the bus.
type Result struct {
	At       time.Time // when it came
	Label    string    // of the best class; empty: an error
	Source   string    // edge or cloud
	Fallback string    // why the cloud did not answer when it was to
	Error    string
}

// Answers are what a service has said over the bus since Collect.
type Answers struct {
	client *bus.Client
	first  chan struct{} // closed by the first answer

	mu      sync.Mutex
	results []Result // without errors
	errors  []string
}

// Collect listens to a service until Close.
func (s *Stack) Collect(ctx context.Context, service string) (*Answers, error) {
	a := &Answers{first: make(chan struct{})}
	filters := []string{wire.InferResult(NodeName, service, "+"), wire.InferError(NodeName, service)}
	var err error
	a.client, err = Listen(ctx, s.MQTT, "example-"+service, filters, func(m bus.Message) {
		if !m.Retained {
			a.add(readResult(m.Payload, time.Now()))
		}
	})
	return a, err
}

func (a *Answers) add(r Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Error != "" {
		a.errors = append(a.errors, r.Error)
		return
	}
	if a.results = append(a.results, r); len(a.results) == 1 {
		close(a.first)
	}
}

// Await waits for the first answer.
func (a *Answers) Await(ctx context.Context, longest time.Duration) error {
	select {
	case <-a.first:
		return nil
	case <-time.After(longest):
		return fmt.Errorf("no answer within %s; errors: %s", longest, strings.Join(a.Errors(), "; "))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Results gives the answers so far, in the order in which they came.
func (a *Answers) Results() []Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.results)
}

// Errors gives the errors so far.
func (a *Answers) Errors() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.errors)
}

// Close ends the listening.
func (a *Answers) Close() { a.client.Close() }

func readResult(payload []byte, at time.Time) Result {
	var r struct {
		Error      json.RawMessage `json:"error"`
		Parameters struct {
			Label    string `json:"sedna_label"`
			Source   string `json:"sedna_source"`
			Fallback string `json:"sedna_fallback"`
		} `json:"parameters"`
	}
	switch err := json.Unmarshal(payload, &r); {
	case err != nil:
		return Result{At: at, Error: "no JSON object: " + err.Error()}
	case len(r.Error) > 0:
		return Result{At: at, Error: string(r.Error)}
	case r.Parameters.Label == "":
		return Result{At: at, Error: "an answer without sedna_label"}
	}
	return Result{At: at, Label: r.Parameters.Label, Source: r.Parameters.Source, Fallback: r.Parameters.Fallback}
}
