package edgelink_test

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/mapper/edgelink"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// lossy is a cloud, an edge half with losses and a mapper, linked.
type lossy struct {
	*cloud
	*edge
	mapper recorder
	link   *websocket.Conn
	dir    string
	lose   losses.Set
}

func startLossy(t *testing.T, lose losses.Set) *lossy {
	t.Helper()
	l := &lossy{cloud: startCloud(t), dir: t.TempDir(), lose: lose}
	l.start(t)
	l.mapper = startMapper(t, l.dir)
	expect(t, l.mapper, "sync 0 0")
	l.link = wait(t, l.links, "link")
	send(t, l.link, wire.Frame{Type: wire.FrameSynced}, modelFrame())
	return l
}

func (l *lossy) start(t *testing.T) {
	l.edge = startEdge(t, l.dir, l.cloud.URL, l.cloud.tls(), func(c *edgelink.Config) { c.Lose, c.Control = l.lose, "127.0.0.1:0" })
}

// set cuts or heals the link by its control address.
func (l *lossy) set(t *testing.T, body, want string) {
	t.Helper()
	res, err := http.Post("http://"+l.ControlAddr()+"/link", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := read(t, res.Body); res.StatusCode != http.StatusOK || !strings.Contains(got, want) {
		t.Fatalf("%s: %d %s", body, res.StatusCode, got)
	}
}

// relink cuts and heals the link; the cloud then sends frames and is done.
func (l *lossy) relink(t *testing.T, synced []string, frames ...wire.Frame) {
	t.Helper()
	l.set(t, `{"up":false}`, `"up":false,"connected":false`)
	l.set(t, `{"up":true}`, `"up":true`)
	l.link = wait(t, l.links, "link after it was healed")
	send(t, l.link, append(frames, wire.Frame{Type: wire.FrameSynced, Devices: synced})...)
}

// report reports of device a and gives the answer's topic and text.
func (l *lossy) report(t *testing.T, value string) string {
	t.Helper()
	if err := l.edge.bus.Publish(t.Context(), wire.TwinUpdate("default", "a"), 1, false, []byte(`{"twin":{"phase":{"actual":{"value":"`+value+`"}}}}`)); err != nil {
		t.Fatal(err)
	}
	m := wait(t, l.seen, "answer")
	for len(l.seen) > 0 {
		<-l.seen
	}
	return string(m.Payload)
}

func TestControl(t *testing.T) {
	l := startLossy(t, losses.Set{})
	l.set(t, `{"up":false}`, `"up":false,"connected":false`)
	l.set(t, `{"up":false}`, `"up":false`)
	silent(t, l.links, "a cut link was dialled")
	l.set(t, `{"up":true}`, `"up":true`)
	wait(t, l.links, "link")
	for _, bad := range []string{``, `{}`, `{"up":"no"}`, `{"down":true}`, `[]`} {
		res, err := http.Post("http://"+l.ControlAddr()+"/link", "", strings.NewReader(bad))
		if err != nil || res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v, %v", bad, res, err)
		}
	}
	req, _ := http.NewRequest(http.MethodPost, "http://"+l.ControlAddr()+"/link", strings.NewReader(`{"up":false}`))
	req.Header.Set("Origin", "http://a.web.page")
	if res, err := http.DefaultClient.Do(req); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("from a web page: %v, %v", res, err)
	}
	if _, err := edgelink.New(edgelink.Config{Node: "n", Cloud: "https://c:1", TLS: l.cloud.tls(), Bus: l.edge.bus, Metrics: nil, DMISocket: "s", Database: "d", Control: "0.0.0.0:0"}); err == nil {
		t.Error("control off loopback was allowed")
	}
}

func TestOfflineReportIsLost(t *testing.T) {
	l := startLossy(t, losses.Set{})
	send(t, l.link, device("a", "1", "x"))
	expect(t, l.mapper, "model m", "upsert a x")
	l.set(t, `{"up":false}`, `"connected":false`)
	l.report(t, "offline")
	l.set(t, `{"up":true}`, `"up":true`)
	wait(t, l.links, "link")
	silent(t, l.frames, "was kept for later")
}

func TestDesiredOfflineIsLost(t *testing.T) {
	l := startLossy(t, losses.Set{DesiredOffline: true})
	send(t, l.link, device("a", "1", "x"))
	expect(t, l.mapper, "model m", "upsert a x")
	l.relink(t, []string{"default/a"}, device("a", "1", "y"))
	silent(t, l.mapper.events, "the mapper heard of a change while the link was down")

	if got := l.registered(t); got != "x" {
		t.Errorf("a fresh registration hands out %q, want the old value", got)
	}
	l.relink(t, []string{"default/a"}, device("a", "1", "y"))
	if got := l.registered(t); got != "x" {
		t.Errorf("after a further reconnect %q", got)
	}
	send(t, l.link, device("a", "1", "z")) // a change while the link is up carries everything
	expect(t, l.mapper, "model m", "upsert a z")

	l.relink(t, []string{"default/a"}, device("a", "1", "w"))
	if got := l.registered(t); got != "z" {
		t.Errorf("handed out %q", got)
	}
	l.edge.stop()
	l.start(t)
	if got := l.registered(t); got != "w" {
		t.Errorf("after a restart %q, want what came meanwhile", got)
	}
}

func TestCreateOfflineIsLost(t *testing.T) {
	l := startLossy(t, losses.Set{CreateOffline: true})
	l.relink(t, []string{"default/a"}, modelFrame(), device("a", "1", "x"))
	silent(t, l.mapper.events, "the mapper heard of a device made while the link was down")
	if got := l.report(t, "r"); !strings.Contains(got, "404") || !strings.Contains(got, "device is not existed") {
		t.Errorf("answered %s", got)
	}
	send(t, l.link, device("a", "1", "y"))
	expect(t, l.mapper, "model m", "upsert a y")
	if got := l.report(t, "r"); !strings.Contains(got, "404") {
		t.Errorf("after an update: answered %s", got)
	}
	l.edge.stop()
	l.start(t)
	l.link = wait(t, l.links, "link")
	expect(t, l.mapper, "sync 1 1")
	send(t, l.link, device("a", "1", "y"), wire.Frame{Type: wire.FrameSynced, Devices: []string{"default/a"}}, device("a", "1", "v"))
	expect(t, l.mapper, "model m", "upsert a v")
	if got := l.report(t, "r"); !strings.Contains(got, "404") {
		t.Errorf("after a restart: answered %s", got)
	}
	send(t, l.link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "a"})
	expect(t, l.mapper, "unmodel m", "remove a")
	send(t, l.link, modelFrame(), device("a", "1", "v"))
	expect(t, l.mapper, "model m", "upsert a v")
	if got := l.report(t, "r"); strings.Contains(got, "404") {
		t.Errorf("bound anew: answered %s", got)
	}
	if f := wait(t, l.frames, "frame"); f.Twins["phase"].Reported != "r" {
		t.Errorf("%+v", f)
	}

	// One that is bound anew before anybody heard of it is registered too.
	l.relink(t, []string{"default/a", "default/b"}, device("b", "2", "x"))
	send(t, l.link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "b"}, device("b", "2", "x"))
	expect(t, l.mapper, "upsert b x")
}

// TestTwinOfflineIsLost has the mapper know a Device that edgecore's twins do not.
func TestTwinOfflineIsLost(t *testing.T) {
	l := startLossy(t, losses.Set{TwinOffline: true})
	l.relink(t, []string{"default/a"}, modelFrame(), device("a", "1", "x"))
	expect(t, l.mapper, "model m", "upsert a x")
	for _, change := range []string{"y", "z"} {
		if got := l.report(t, "r"); !strings.Contains(got, "404") {
			t.Errorf("before %s: answered %s", change, got)
		}
		send(t, l.link, device("a", "1", change))
		expect(t, l.mapper, "model m", "upsert a "+change)
	}
	send(t, l.link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "a"})
	expect(t, l.mapper, "unmodel m", "remove a")
	send(t, l.link, modelFrame(), device("a", "1", "v"))
	expect(t, l.mapper, "model m", "upsert a v")
	if got := l.report(t, "r"); strings.Contains(got, "404") {
		t.Errorf("bound anew: answered %s", got)
	}
}

func TestDeleteOfflineIsLost(t *testing.T) {
	l := startLossy(t, losses.Set{DeleteOffline: true})
	send(t, l.link, device("a", "1", "x"))
	expect(t, l.mapper, "model m", "upsert a x")
	l.relink(t, nil)
	silent(t, l.mapper.events, "the mapper heard of a deletion while the link was down")
	if got := l.registered(t); got != "x" {
		t.Errorf("handed out %q", got)
	}
}

func TestDrops(t *testing.T) {
	l := startLossy(t, losses.Set{DropUp: 1, DropDown: 1})
	send(t, l.link, device("a", "1", "x")) // a registration is not dropped
	expect(t, l.mapper, "model m", "upsert a x")
	send(t, l.link, device("a", "1", "y"))
	l.report(t, "r")
	silent(t, l.frames, "a report was not dropped")
	silent(t, l.mapper.events, "a change was not dropped")
}

// registered gives the desired value that a fresh MapperRegister hands out.
func (l *lossy) registered(t *testing.T) string {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+filepath.Join(l.dir, "dmi.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	res, err := pb.NewDeviceManagerServiceClient(conn).MapperRegister(t.Context(), &pb.MapperRegisterRequest{WithData: true,
		Mapper: &pb.MapperInfo{Name: "probe", Protocol: "sedna", Address: []byte(filepath.Join(l.dir, "mapper.sock"))}}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.DeviceList) != 1 {
		t.Fatalf("%d devices were handed out", len(res.DeviceList))
	}
	return res.DeviceList[0].Spec.Properties[0].Desired.Value
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBindingAnewIsNotCoalesced: a device that leaves and comes back at once is
// removed from the mapper and registered, however fast.
func TestBindingAnewIsNotCoalesced(t *testing.T) {
	l := startLossy(t, losses.Set{})
	send(t, l.link, device("b", "2", "x"), device("a", "1", "x")) // b keeps the model in use
	expect(t, l.mapper, "model m", "upsert b x", "upsert a x")
	for range 50 {
		send(t, l.link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "a"}, device("a", "1", "x"))
		expect(t, l.mapper, "remove a", "upsert a x")
	}
}

// TestFirstEmptyIsLost: the first report after a registration goes up without
// what is empty in it, its repetition is whole.
func TestFirstEmptyIsLost(t *testing.T) {
	l := startLossy(t, losses.Set{FirstEmpty: true})
	send(t, l.link, device("b", "2", "x"), device("a", "1", "x")) // b keeps the model in use
	expect(t, l.mapper, "model m", "upsert b x", "upsert a x")
	for _, whole := range []bool{false, true} {
		l.report(t, "")
		if !whole {
			silent(t, l.frames, "an empty property went up with the first report")
		} else if _, there := wait(t, l.frames, "frame").Twins["phase"]; !there {
			t.Error("an empty property is missing in the repetition")
		}
	}
	// Bound anew everything is new again.
	send(t, l.link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "a"}, device("a", "1", "x"))
	expect(t, l.mapper, "remove a", "upsert a x")
	l.report(t, "")
	silent(t, l.frames, "an empty property went up with the first report")
}
