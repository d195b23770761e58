package mapper_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	peer "github.com/simonvetter/modbus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/mapper"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// cloud is a bare peer of edgelink.
type cloud struct {
	links  chan *websocket.Conn
	frames chan *wire.Frame
	node   *identity.Node

	states map[string]string        // by device, see until
	twins  map[string]wire.TwinPair // by device/property
}

// startCloud serves edgelink and joins node n1 to it.
func startCloud(t testing.TB, dir string) *cloud {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{links: make(chan *websocket.Conn, 10), frames: make(chan *wire.Frame, 10000), states: map[string]string{}, twins: map[string]wire.TwinPair{}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		c.links <- conn
		for {
			_, b, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			f, err := wire.DecodeFrame(b)
			if err != nil {
				t.Errorf("the edge sent %s: %v", b, err)
				return
			}
			c.frames <- f
		}
	}))
	serving, err := ca.ServerCert("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{serving}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	csr, err := identity.NodeCSR(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, "n1")
	if err != nil {
		t.Fatal(err)
	}
	c.node, err = identity.SaveNode(dir, "n1", srv.URL, identity.Grant{Certificate: string(cert), CA: string(ca.CertPEM()), SigningKeys: [][]byte{make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// until takes frames in until cond holds.
func (c *cloud) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.After(2 * patience); !cond(); {
		select {
		case f := <-c.frames:
			if f.Type == wire.FrameState {
				c.states[f.Name] = f.State
			}
			for k, v := range f.Twins {
				c.twins[f.Name+"/"+k] = v
			}
		case <-deadline:
			t.Fatalf("%s: states %v, twins %v", what, c.states, c.twins)
		}
	}
}

func send(t testing.TB, conn *websocket.Conn, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, b); err != nil {
			t.Fatal(err)
		}
	}
}

func configData(v map[string]any) *pb.CustomizedValue {
	out := &pb.CustomizedValue{Data: map[string]*anypb.Any{}}
	for k, v := range v {
		var m proto.Message
		switch v := v.(type) {
		case string:
			m = wrapperspb.String(v)
		case bool:
			m = wrapperspb.Bool(v)
		case int:
			m = wrapperspb.Int64(int64(v))
		case float64:
			m = wrapperspb.Double(v)
		}
		out.Data[k], _ = anypb.New(m)
	}
	return out
}

type prop struct {
	name, desired string
	visitor       map[string]any // nil: the property has none
}

func deviceFrame(name, uid, protocol string, conf map[string]any, props ...prop) wire.Frame {
	d := &pb.Device{Namespace: "default", Name: name, Spec: &pb.DeviceSpec{DeviceModelReference: "m", Protocol: &pb.ProtocolConfig{ProtocolName: protocol, ConfigData: configData(conf)}}}
	for _, p := range props {
		dp := &pb.DeviceProperty{Name: p.name, Desired: &pb.TwinProperty{Value: p.desired}, CollectCycle: 50, ReportCycle: 1000, ReportToCloud: true}
		if p.visitor != nil {
			dp.Visitors = &pb.VisitorConfig{ProtocolName: protocol, ConfigData: configData(p.visitor)}
		}
		d.Spec.Properties = append(d.Spec.Properties, dp)
	}
	b, _ := protojson.Marshal(d)
	return wire.Frame{Type: wire.FrameDevice, Namespace: "default", Name: name, UID: uid, Device: b}
}

func modelFrame() wire.Frame {
	b, _ := protojson.Marshal(&pb.DeviceModel{Namespace: "default", Name: "m", Spec: &pb.DeviceModelSpec{Properties: []*pb.ModelProperty{
		{Name: "temperature", Type: "DOUBLE", AccessMode: "ReadOnly", Unit: "C"}, {Name: "valve", Type: "INT", AccessMode: "ReadWrite", Minimum: "0", Maximum: "100"},
		{Name: "passed", Type: "INT", AccessMode: "ReadOnly"}, {Name: "label", Type: "STRING", AccessMode: "ReadOnly"},
	}}})
	return wire.Frame{Type: wire.FrameModel, Namespace: "default", Name: "m", Model: b}
}

// registers is a Modbus device.
type registers struct {
	mu sync.Mutex
	r  [16]uint16
}

func (r *registers) HandleCoils(*peer.CoilsRequest) ([]bool, error) {
	return nil, peer.ErrIllegalFunction
}
func (r *registers) HandleDiscreteInputs(*peer.DiscreteInputsRequest) ([]bool, error) {
	return nil, peer.ErrIllegalFunction
}
func (r *registers) HandleInputRegisters(*peer.InputRegistersRequest) ([]uint16, error) {
	return nil, peer.ErrIllegalFunction
}
func (r *registers) HandleHoldingRegisters(q *peer.HoldingRegistersRequest) ([]uint16, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.IsWrite {
		copy(r.r[q.Addr:], q.Args)
	}
	return append([]uint16(nil), r.r[q.Addr:q.Addr+q.Quantity]...), nil
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run starts a mapper with its edgelink and gives its link and endpoints.
func run(t testing.TB, edit func(*mapper.Config)) (*cloud, *websocket.Conn, mapper.Endpoints) {
	t.Helper()
	dir := t.TempDir()
	c := mapper.Default()
	c.Identity, c.DMISocket, c.Socket = filepath.Join(dir, "identity"), filepath.Join(dir, "dmi.sock"), filepath.Join(dir, "mapper.sock")
	c.HTTP, c.Broker = "127.0.0.1:0", mapper.Broker{Enabled: true, Listen: "127.0.0.1:0"}
	c.Edgelink = mapper.Edgelink{Enabled: true, Database: filepath.Join(dir, "edge.db")}
	up := startCloud(t, c.Identity)
	edit(&c)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan mapper.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- mapper.Run(ctx, c, slog.New(slog.DiscardHandler), func(e mapper.Endpoints) { ready <- e })
	}()
	t.Cleanup(func() {
		cancel()
		if err := wait(t, done, "end of Run"); err != nil {
			t.Error(err)
		}
	})
	e := wait(t, ready, "ready")
	return up, wait(t, up.links, "link"), e
}

func TestDevicesFromCloudToCloud(t *testing.T) {
	port := freePort(t)
	memory := &registers{}
	memory.r[0] = 215
	serve := func() *peer.ModbusServer {
		s, err := peer.NewServer(&peer.ServerConfiguration{URL: "tcp://127.0.0.1:" + strconv.Itoa(port), MaxClients: 5, Logger: log.New(io.Discard, "", 0)}, memory)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	plc := serve()
	defer func() { _ = plc.Stop() }()
	pic, err := os.ReadFile(filepath.Join("testdata", "frame.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	cam := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(pic) }))
	defer cam.Close()
	images := make(chan string, 1000)
	lc := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		images <- r.URL.RequestURI() + " " + r.Header.Get("Authorization") + " " + strconv.Itoa(len(b))
	}))
	defer lc.Close()

	up, link, e := run(t, func(c *mapper.Config) {
		c.Drivers = []string{"sedna-modbus", "sedna-camera", "sedna-simulated"}
		c.Devices.LocalController, c.Devices.Token = lc.URL, "tok"
	})
	app, err := bus.New(bus.Options{URL: e.MQTT, ClientID: "app", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	readings := make(chan string, 10000)
	app.Subscribe("sedna/n1/sensor/#", 0, func(m bus.Message) { readings <- m.Topic + " " + string(m.Payload) })
	app.Start(t.Context())

	conf := map[string]any{"host": "127.0.0.1", "port": port}
	plcProps := func(desired string) []prop {
		return []prop{{"temperature", "", map[string]any{"register": "holding", "address": 0, "type": "int16", "scale": 0.1}}, {"valve", desired, map[string]any{"register": "holding", "address": 1}}}
	}
	send(t, link, modelFrame(),
		deviceFrame("plc", "1", "sedna-modbus", conf, plcProps("40")...),
		deviceFrame("cam", "2", "sedna-camera", map[string]any{"source": "snapshot", "url": cam.URL, "service": "digits", "fps": 50}, prop{"passed", "", map[string]any{"value": "passed"}}),
		deviceFrame("sim", "3", "sedna-simulated", nil, prop{"temperature", "", map[string]any{"function": "sine", "offset": 20, "amplitude": 0.5}}),
		deviceFrame("bad", "4", "sedna-simulated", map[string]any{"sed": 1}, prop{"temperature", "", map[string]any{}}),
	)
	up.until(t, "all in the cloud", func() bool {
		return up.states["plc"] == "online" && up.states["cam"] == "online" && up.states["sim"] == "online" && up.states["bad"] == "unhealthy" &&
			up.twins["plc/temperature"].Reported == "21.5" && up.twins["plc/valve"] == wire.TwinPair{Reported: "40", ObservedDesired: "40"} &&
			up.twins["cam/passed"].Reported != "" && up.twins["sim/temperature"].Reported != ""
	})
	for seen := map[string]bool{}; len(seen) < 3; {
		topic, payload, _ := strings.Cut(wait(t, readings, "readings on the bus"), " ")
		if strings.Contains(topic, "/plc/temperature") && !strings.Contains(payload, `"value":21.5,"type":"DOUBLE","unit":"C","timestamp":1`) {
			t.Error(payload)
		}
		seen[strings.Split(topic, "/")[4]] = true
	}
	if got := wait(t, images, "frame at the LocalController"); got != "/v1/services/digits/image?device=default%2Fcam Bearer tok "+strconv.Itoa(len(pic)) {
		t.Error(got)
	}
	// The cloud turns the valve.
	send(t, link, deviceFrame("plc", "1", "sedna-modbus", conf, plcProps("60")...))
	up.until(t, "the valve", func() bool { return up.twins["plc/valve"] == wire.TwinPair{Reported: "60", ObservedDesired: "60"} })
	// The PLC goes and comes back; nobody else cares.
	if err := plc.Stop(); err != nil {
		t.Fatal(err)
	}
	up.until(t, "offline", func() bool { return up.states["plc"] == "offline" })
	plc = serve()
	up.until(t, "online again", func() bool { return up.states["plc"] == "online" })
	if up.states["sim"] != "online" || up.states["cam"] != "online" {
		t.Errorf("%v", up.states)
	}
	res, err := http.Get("http://" + e.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	for _, want := range []string{`sedna_mapper_device_state{device="sim",namespace="default",protocol="sedna-simulated",state="online"} 1`,
		`sedna_mapper_device_problem{device="bad",namespace="default",problem="invalid_argument: protocol.configData.sed: there is no such setting"`,
		`sedna_mapper_device_writes_total{protocol="sedna-modbus",result="done"} 2`, `sedna_mapper_budget_spent_total{for="sensors"}`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

// TestResultsReachDevicesAndTheCloud writes as the LocalController does: to an
// actuator, and to a property that no driver serves.
func TestResultsReachDevicesAndTheCloud(t *testing.T) {
	up, link, e := run(t, func(c *mapper.Config) { c.Drivers, c.Token = []string{"sedna-simulated"}, "secret" })
	send(t, link, modelFrame(), deviceFrame("press", "1", "sedna-simulated", nil,
		prop{"valve", "", map[string]any{"value": "5"}}, prop{"label", "", nil}))
	up.until(t, "online", func() bool {
		return up.states["press"] == "online" && up.twins["press/valve"].Reported == "5"
	})
	app, err := bus.New(bus.Options{URL: e.MQTT, ClientID: "app", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	connected := make(chan struct{}, 1)
	app.OnConnect(func() { connected <- struct{}{} })
	app.Start(t.Context())
	wait(t, connected, "bus")
	write := func(property string, w task.Write) {
		t.Helper()
		b, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if err := app.Publish(t.Context(), wire.SensorSet("n1", "default", "press", property), 1, false, b); err != nil {
			t.Fatal(err)
		}
	}
	write("valve", task.Write{Value: json.RawMessage("99")}) // anybody's
	write("valve", task.SignWrite(up.node.Key(), "n1", "default", "press", "valve", json.RawMessage("60"), time.Now()))
	write("label", task.SignWrite(up.node.Key(), "n1", "default", "press", "label", json.RawMessage(`"worn"`), time.Now()))
	up.until(t, "results in the cloud", func() bool {
		if v := up.twins["press/valve"].Reported; v == "99" {
			t.Fatal("an unsigned write was taken")
		}
		return up.twins["press/valve"].Reported == "60" && up.twins["press/label"].Reported == "worn"
	})

	get := func(token string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.HTTP+"/v1/devices", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	if code, body := get("guess"); code != http.StatusUnauthorized {
		t.Error(code, body)
	}
	code, body := get("secret")
	for _, want := range []string{`{"devices":[{"namespace":"default","name":"press","protocol":"sedna-simulated","state":"online","properties":{`,
		`"label":{"value":"worn","type":"STRING","timestamp":1`, `"valve":{"value":60,"type":"INT","timestamp":1`} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%d: no %s in %s", code, want, body)
		}
	}
}

func TestDeviceSettings(t *testing.T) {
	for name, edit := range map[string]func(*mapper.Config){
		"unknown driver": func(c *mapper.Config) { c.Drivers = []string{"modbus"} },
		"twice":          func(c *mapper.Config) { c.Drivers = []string{"sedna-file", "sedna-file"} },
		"relative root":  func(c *mapper.Config) { c.Devices.DataRoots = []string{"data"} },
		"rate":           func(c *mapper.Config) { c.Devices.ReportRate = 100 },
		"sink":           func(c *mapper.Config) { c.Devices.LocalController = "ftp://x" },
	} {
		c := mapper.Default()
		edit(&c)
		if err := mapper.Check(&c); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkReadings is 1000 simulated devices, each read as fast as it may
// be, from the driver through the engine and the broker to a subscriber.
func BenchmarkReadings(b *testing.B) {
	_, link, e := run(b, func(c *mapper.Config) { c.Drivers = []string{"sedna-simulated"} })
	app, err := bus.New(bus.Options{URL: e.MQTT, ClientID: "app", CleanSession: true, QueueSize: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	defer app.Close()
	got := make(chan struct{}, 1<<20)
	app.Subscribe("sedna/n1/sensor/#", 0, func(bus.Message) { got <- struct{}{} })
	app.Start(b.Context())
	frames := []wire.Frame{modelFrame()}
	const devices = 1000
	for i := range devices {
		f := deviceFrame("sim"+strconv.Itoa(i), strconv.Itoa(i), "sedna-simulated", nil, prop{"temperature", "", map[string]any{"function": "sine"}})
		f.Device = json.RawMessage(strings.Replace(string(f.Device), `"50"`, `"10"`, 1))
		frames = append(frames, f)
	}
	send(b, link, frames...)
	for range 2 * devices {
		<-got
	}
	b.ResetTimer()
	for range b.N {
		<-got
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "readings/s")
}

// BenchmarkMemoryOfDevices holds 100 simulated devices that are read once a
// second.
func BenchmarkMemoryOfDevices(b *testing.B) {
	up, link, _ := run(b, func(c *mapper.Config) { c.Drivers = []string{"sedna-simulated"} })
	inUse := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse+m.StackInuse) / (1 << 20)
	}
	before := inUse()
	frames := []wire.Frame{modelFrame()}
	const devices = 100
	for i := range devices {
		f := deviceFrame("sim"+strconv.Itoa(i), strconv.Itoa(i), "sedna-simulated", nil, prop{"temperature", "", map[string]any{"function": "sine"}})
		f.Device = json.RawMessage(strings.Replace(string(f.Device), `"50"`, `"1000"`, 1))
		frames = append(frames, f)
	}
	send(b, link, frames...)
	for online := map[string]bool{}; len(online) < devices; {
		if f := <-up.frames; f.Type == wire.FrameState && f.State == "online" {
			online[f.Name] = true
		}
	}
	for b.Loop() {
		time.Sleep(10 * time.Millisecond)
	}
	b.ReportMetric(inUse()-before, "MiB/100-devices")
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.ParseFloat(strings.Fields(kb)[0], 64)
				b.ReportMetric(n/1024, "MiB-resident")
			}
		}
	}
}
