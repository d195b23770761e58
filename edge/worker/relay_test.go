package worker_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/worker"
	"github.com/edgetwin/sedna/models/task"
)

// lines is a TCP service that answers each connection with what it has said,
// when it has said all.
type lines struct {
	net.Listener
	wg sync.WaitGroup
}

func serveEcho(t *testing.T) *lines {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &lines{Listener: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer c.Close()
				all, err := io.ReadAll(c)
				if err == nil {
					_, _ = c.Write(all)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); s.wg.Wait() })
	return s
}

// dialer leads every target to one address.
type dialer struct{ to string }

func (d dialer) Dial(ctx context.Context, target string) (worker.Conn, error) {
	if target != "big.ns:5000" {
		return nil, errors.New("no such service")
	}
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "tcp", d.to)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// relayed starts a worker that does nothing, and gives the port of its relay.
func relayed(t *testing.T, to, target string, edit func(*worker.Options)) (*node, int, worker.Request) {
	t.Helper()
	n := newNode(t, t.TempDir(), func(o *worker.Options) {
		o.Dialer = dialer{to}
		if edit != nil {
			edit(o)
		}
	})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	file := filepath.Join(t.TempDir(), "notes")
	r := request(t, 1, "run", file)
	r.Worker.Relays = []task.WorkerRelay{{HostEnv: "BIG_MODEL_IP", PortEnv: "BIG_MODEL_PORT", Port: port, Target: target}}
	n.apply(r)
	awaitFile(t, file, "start", 1)
	return n, port, r
}

func dialRelay(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRelayHalfClose(t *testing.T) {
	n, port, _ := relayed(t, serveEcho(t).Addr().String(), "big.ns:5000", nil)
	c := dialRelay(t, port)
	said := strings.Repeat("over the link ", 1<<16)
	if _, err := io.WriteString(c, said); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil { // the service answers after this
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != said {
		t.Errorf("%d of %d bytes, %v", len(got), len(said), err)
	}
	if err := n.s.Stop(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", c.RemoteAddr().String()); err == nil {
		c.Close()
		t.Error("the relay outlives its worker")
	}
}

func TestRelayThatWorkersUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 6)
		if _, err := io.ReadFull(c, b); err == nil {
			_, _ = io.WriteString(c, "got "+string(b))
		}
	})
	taken, err := net.Listen("tcp", "127.0.0.1:0") // the port that the reference has is in use
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Dialer = dialer{l.Addr().String()} })
	r := request(t, 1, "dial")
	r.Worker.Relays = []task.WorkerRelay{{HostEnv: "BIG_MODEL_IP", PortEnv: "BIG_MODEL_PORT", Port: taken.Addr().(*net.TCPAddr).Port, Target: "big.ns:5000"}}
	n.apply(r)
	if st := n.untilPhase(worker.Succeeded); len(st.LastLines) == 0 || st.LastLines[0] != "got hello" {
		t.Errorf("%q", st.LastLines)
	}
	r.Generation, r.Worker.RestartPolicy, r.Worker.Relays[0].PortEnv = 2, task.RestartOnFailure, ""
	n.apply(r) // nothing else can be told to the worker
	st := n.until("refused", func(st worker.Status) bool { return st.Reason == worker.ReasonNotStarted })
	if !strings.Contains(st.Detail, "in use") {
		t.Errorf("%+v", st)
	}
}

func TestRelayBounds(t *testing.T) {
	_, port, _ := relayed(t, serveEcho(t).Addr().String(), "big.ns:5000", func(o *worker.Options) {
		o.Limits.RelayConnections, o.Limits.RelayIdle = 2, 300*time.Millisecond
	})
	a, b := dialRelay(t, port), dialRelay(t, port)
	for _, c := range []*net.TCPConn{a, b} {
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
	}
	third := dialRelay(t, port)
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection")
	}
	began := time.Now()
	if _, err := a.Read(make([]byte, 1)); err == nil || time.Since(began) > 10*time.Second {
		t.Error("a silent connection stays", err)
	}
}

func TestRelayToNowhere(t *testing.T) {
	_, port, _ := relayed(t, "", "other.ns:1", nil)
	if _, err := dialRelay(t, port).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// The relay of a worker that goes on is opened again where the worker knows it.
func TestRelayAfterAdoption(t *testing.T) {
	echo := serveEcho(t)
	n, port, _ := relayed(t, echo.Addr().String(), "big.ns:5000", nil)
	dir := n.dir
	n.close()
	n = newNode(t, dir, func(o *worker.Options) { o.Dialer = dialer{echo.Addr().String()} })
	n.until("adopted", func(worker.Status) bool {
		c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	c := dialRelay(t, port)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
}
