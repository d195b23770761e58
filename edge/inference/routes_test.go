package inference

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func serve(t testing.TB, m *Manager) *httptest.Server {
	t.Helper()
	r := gin.New()
	m.Routes(r)
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s
}

func scrape(t testing.TB, reg *metrics.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func call(t testing.TB, method, url, contentType string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// grayPNG is an image of the given size; pixel i is values[i].
func grayPNG(t testing.TB, width, height int, values ...byte) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, width, height))
	copy(img.Pix, values)
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// imageSpec is a service whose model takes 2x2 gray pixels and is surest of the
// class of the brightest.
func imageSpec(t testing.TB) ServiceSpec {
	s := serviceSpec(t, "")
	s.Name, s.ModelPath = "img", servingtest.File(t, servingtest.Classifier(4, 10, true))
	s.Model.Labels = []string{"nw", "ne", "sw", "se"}
	return s
}

// TestRoutes compares status and body of what the routes answer with the golden
// file.
func TestRoutes(t *testing.T) {
	reg := metrics.New()
	m := newManager(t, func(c *Config) {
		c.Metrics = reg
		c.Limits.ImagePixels = 100
		c.Limits.ImageBytes = 1000
	})
	activate(t, m, serviceSpec(t, ""))
	activate(t, m, imageSpec(t))
	noClasses := imageSpec(t)
	noClasses.Name, noClasses.Model.Postprocess = "none", "none"
	activate(t, m, noClasses)
	server := serve(t, m)

	infer, err := request("q", hardA).AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	dot := grayPNG(t, 2, 2, 0, 0, 255, 0)
	bomb := grayPNG(t, 11, 10)
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, image.NewGray(image.Rect(0, 0, 2, 2)), nil); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body"`
	}
	got := map[string]answer{}
	refused := 0.0
	for _, c := range []struct {
		name, method, path, contentType string
		body                            []byte
	}{
		{"server", "GET", "/v2", "", nil},
		{"live", "GET", "/v2/health/live", "", nil},
		{"ready", "GET", "/v2/health/ready", "", nil},
		{"model", "GET", "/v2/models/svc", "", nil},
		{"model of version", "GET", "/v2/models/svc/versions/1", "", nil},
		{"model ready", "GET", "/v2/models/svc/ready", "", nil},
		{"unknown model", "GET", "/v2/models/other/ready", "", nil},
		{"unknown version", "POST", "/v2/models/svc/versions/2/infer", "", infer},
		{"infer", "POST", "/v2/models/svc/infer", "application/json", infer},
		{"infer version", "POST", "/v2/models/svc/versions/1/infer", "application/json", infer},
		{"infer wrong shape", "POST", "/v2/models/svc/infer", "", bytes.Replace(infer, []byte("[1,3]"), []byte("[3]"), 1)},
		{"infer wrong method", "PUT", "/v2/models/svc/infer", "", infer},
		{"infer bad JSON", "POST", "/v2/models/svc/infer", "", []byte("{")},
		{"models", "GET", "/v1/models", "", nil},
		{"png", "POST", "/v1/services/img/image?id=p1", "image/png", dot},
		{"jpeg", "POST", "/v1/services/img/image?id=p2", "image/jpeg; q=1", jpg.Bytes()},
		{"image of unknown service", "POST", "/v1/services/other/image", "image/png", dot},
		{"image with bad id", "POST", "/v1/services/img/image?id=a/b", "image/png", dot},
		{"image without type", "POST", "/v1/services/img/image", "", dot},
		{"image of wrong type", "POST", "/v1/services/img/image", "image/gif", dot},
		{"png said to be jpeg", "POST", "/v1/services/img/image", "image/jpeg", dot},
		{"image cut", "POST", "/v1/services/img/image", "image/png", dot[:len(dot)-16]},
		{"image empty", "POST", "/v1/services/img/image", "image/png", nil},
		{"image with too many pixels", "POST", "/v1/services/img/image", "image/png", bomb},
		{"image with too many bytes", "POST", "/v1/services/img/image", "image/png", make([]byte, 1001)},
		{"image for a model of 3 numbers", "POST", "/v1/services/svc/image", "image/png", dot},
		{"image for a model without classes", "POST", "/v1/services/none/image", "image/png", dot},
	} {
		status, body := call(t, c.method, server.URL+c.path, c.contentType, c.body)
		got[c.name] = answer{status, body}
		if status >= 400 {
			refused++
		}
	}
	golden(t, "testdata/routes.json", got)

	counted := 0.0
	for _, code := range []wire.Code{wire.NotFound, wire.InvalidArgument, wire.UnsupportedMedia, wire.TooLarge, wire.FailedPrecondition} {
		counted += counter(t, reg, `sedna_rejected_total{code="`+string(code)+`",door="http"}`)
	}
	if counted != refused {
		t.Errorf("%v refused, %v counted", refused, counted)
	}
}

func TestMetrics(t *testing.T) {
	big := newBigModel(t)
	reg := metrics.New()
	m := newManager(t, func(c *Config) { c.Metrics = reg })
	activate(t, m, serviceSpec(t, big.URL))
	for _, row := range [][]float32{easyA, hardA, hardA, easyB} {
		if _, err := m.Infer(t.Context(), "svc", request("", row)); err != nil {
			t.Fatal(err)
		}
	}
	big.misbehave(says(500, ""))
	for range 3 {
		if _, err := m.Infer(t.Context(), "svc", request("", hardA)); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = m.Infer(t.Context(), "svc", request("", easyA[:1]))
	for series, want := range map[string]float64{
		`sedna_inference_requests_total{service="svc",source="edge"}`:    5,
		`sedna_inference_requests_total{service="svc",source="cloud"}`:   2,
		`sedna_inference_errors_total{service="svc"}`:                    1,
		`sedna_inference_samples_total{service="svc"}`:                   7,
		`sedna_hard_examples_total{service="svc"}`:                       5,
		`sedna_hard_example_ratio{service="svc"}`:                        5.0 / 7,
		`sedna_cloud_fallback_total{reason="cloud error",service="svc"}`: 3,
		`sedna_cloud_circuit{service="svc",state="open"}`:                1,
		`sedna_cloud_circuit{service="svc",state="closed"}`:              0,
		`sedna_inference_seconds_count{service="svc",stage="total"}`:     7,
		`sedna_inference_seconds_count{service="svc",stage="compute"}`:   7,
		`sedna_inference_seconds_count{service="svc",stage="cloud"}`:     2,
	} {
		if got := counter(t, reg, series); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	for _, direction := range []string{"sent", "received"} {
		if counter(t, reg, `sedna_cloud_bytes_total{direction="`+direction+`",service="svc"}`) == 0 {
			t.Errorf("no bytes %s", direction)
		}
	}
	m.Deactivate("default", "svc")
	if text := scrape(t, reg); strings.Contains(text, `service="svc"`) {
		t.Error("a service that is gone is still measured")
	}
	if _, err := New(Config{Node: "edge-a", Metrics: reg}); err == nil {
		t.Error("two Managers on one registry")
	}
}

// TestImageTensor compares what becomes of pixels with what was computed by
// hand.
func TestImageTensor(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 2, 1))
	img.Set(0, 0, color.RGBA{10, 20, 30, 255})
	img.Set(1, 0, color.RGBA{40, 50, 60, 255})
	fp32 := func(shape ...int64) []engine.TensorInfo {
		return []engine.TensorInfo{{Name: "x", Datatype: engine.FP32, Shape: shape}}
	}
	for _, c := range []struct {
		name  string
		p     *task.Preprocess
		in    []engine.TensorInfo
		shape []int64
		want  any
	}{
		{"NCHW", &task.Preprocess{Width: 2, Height: 1, Channels: "RGB", Layout: "NCHW", Scale: 1}, fp32(-1, 3, 1, 2), []int64{1, 3, 1, 2}, []float32{10, 40, 20, 50, 30, 60}},
		{"NHWC", &task.Preprocess{Width: 2, Height: 1, Channels: "RGB", Layout: "NHWC", Scale: 1}, fp32(-1, 1, 2, 3), []int64{1, 1, 2, 3}, []float32{10, 20, 30, 40, 50, 60}},
		{"BGR", &task.Preprocess{Width: 2, Height: 1, Channels: "BGR", Layout: "NHWC", Scale: 1}, fp32(1, 1, 2, 3), []int64{1, 1, 2, 3}, []float32{30, 20, 10, 60, 50, 40}},
		{"gray", &task.Preprocess{Width: 2, Height: 1, Channels: "GRAY", Layout: "FLAT", Scale: 1}, fp32(-1, 2), []int64{1, 2}, []float32{18, 48}},
		{"scale, mean, std", &task.Preprocess{Width: 2, Height: 1, Channels: "RGB", Layout: "FLAT", Scale: 0.1, Mean: []float64{1, 2, 3}, Std: []float64{0.5}}, fp32(6), []int64{6}, []float32{0, 0, 0, 6, 6, 6}},
		{"UINT8", &task.Preprocess{Width: 2, Height: 1, Channels: "RGB", Layout: "NHWC", Scale: 10}, []engine.TensorInfo{{Name: "x", Datatype: engine.Uint8, Shape: []int64{1, 1, 2, 3}}}, []int64{1, 1, 2, 3}, []uint8{100, 200, 255, 255, 255, 255}},
		{"letterbox", &task.Preprocess{Width: 2, Height: 3, Resize: "letterbox", Channels: "GRAY", Layout: "FLAT", Scale: 1}, fp32(-1, 6), []int64{1, 6}, []float32{114, 114, 18, 48, 114, 114}},
		{"stretch", &task.Preprocess{Width: 2, Height: 2, Channels: "GRAY", Layout: "FLAT", Scale: 1}, fp32(-1, 4), []int64{1, 4}, []float32{18, 48, 18, 48}},
		{"inferred", nil, fp32(-1, 1), []int64{1, 1}, []float32{float32(33.0 / 255)}},
	} {
		plan := planImage(c.p, c.in)
		if plan.err != nil {
			t.Errorf("%s: %v", c.name, plan.err)
			continue
		}
		got := plan.tensor(img)
		if got.Name != "x" || !cmp.Equal(got.Shape, c.shape) || !near(got.Data, c.want) {
			t.Errorf("%s: %v %v, want %v %v", c.name, got.Shape, got.Data, c.shape, c.want)
		}
	}
}

func near(got, want any) bool {
	g, ok := got.([]float32)
	w, _ := want.([]float32)
	if !ok {
		return cmp.Equal(got, want)
	}
	for i := range w {
		if len(g) != len(w) || math.Abs(float64(g[i]-w[i])) > 1e-4 {
			return false
		}
	}
	return true
}

func TestImagePlanErrors(t *testing.T) {
	x := engine.TensorInfo{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 3, 4, 4}}
	good := task.Preprocess{Width: 4, Height: 4, Channels: "RGB", Layout: "NCHW", Scale: 1}
	if plan := planImage(&good, []engine.TensorInfo{x}); plan.err != nil {
		t.Fatal(plan.err)
	}
	for name, edit := range map[string]func(*task.Preprocess){
		"size":     func(p *task.Preprocess) { p.Width = 5 },
		"no size":  func(p *task.Preprocess) { p.Height = 0 },
		"huge":     func(p *task.Preprocess) { p.Width = 1 << 20 },
		"resize":   func(p *task.Preprocess) { p.Resize = "crop" },
		"channels": func(p *task.Preprocess) { p.Channels = "HSV" },
		"gray":     func(p *task.Preprocess) { p.Channels = "GRAY" },
		"layout":   func(p *task.Preprocess) { p.Layout = "HWCN" },
		"mean":     func(p *task.Preprocess) { p.Mean = []float64{1, 2} },
		"std":      func(p *task.Preprocess) { p.Std = []float64{1, 0, 1} },
	} {
		p := good
		edit(&p)
		if plan := planImage(&p, []engine.TensorInfo{x}); !wire.IsCode(plan.err, wire.FailedPrecondition) || wire.AsError(plan.err).Field != "model.preprocess" {
			t.Errorf("%s: %v", name, plan.err)
		}
	}
	for name, inputs := range map[string][]engine.TensorInfo{
		"two inputs": {x, x},
		"integers":   {{Name: "x", Datatype: engine.Int64, Shape: []int64{-1, 4}}},
		"no square":  {{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 5}}},
		"dynamic":    {{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, -1}}},
		"any rank":   {{Name: "x", Datatype: engine.FP32}},
	} {
		if plan := planImage(nil, inputs); !wire.IsCode(plan.err, wire.FailedPrecondition) {
			t.Errorf("%s: %v", name, plan.err)
		}
	}
}

// FuzzImage: no image makes us decode more pixels than allowed, or fail other
// than with a wire error.
func FuzzImage(f *testing.F) {
	f.Add(grayPNG(f, 2, 2, 1, 2, 3, 4), true)
	f.Add(grayPNG(f, 11, 11), true)
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewRGBA(image.Rect(0, 0, 9, 9)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes(), false)
	plan := planImage(nil, []engine.TensorInfo{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 16}}})
	f.Fuzz(func(t *testing.T, body []byte, isPNG bool) {
		contentType := typeJPEG
		if isPNG {
			contentType = typePNG
		}
		img, err := decodeImage(contentType, body, 100)
		if err != nil {
			if c := wire.AsError(err).Code; c != wire.InvalidArgument && c != wire.TooLarge {
				t.Fatal(err)
			}
			return
		}
		if b := img.Bounds(); b.Dx()*b.Dy() > 100 {
			t.Fatalf("decoded %v", b)
		}
		if n := len(plan.tensor(img).Data.([]float32)); n != 16 {
			t.Fatalf("%d values", n)
		}
	})
}
