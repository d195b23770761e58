package inference

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"runtime"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// BenchmarkInputsThroughBus is from a sensor's publication through a real
// broker into windows of 8 rows of 8 values and the digits-sized model, with
// an answer for each 8 rows. readings/s counts the readings, answers/s the
// results that the outbox took.
func BenchmarkInputsThroughBus(b *testing.B) {
	br, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = br.Close() })
	p := &plant{t: b, addr: br.Addr(), broker: br, Manager: newManager(b, nil), app: busClient(b, br.Addr(), "sensors")}
	serveBus(b, p.Manager, busClient(b, br.Addr(), "gateway"))
	in := task.Input{Tensor: "input", Window: 8, Stride: 8}
	var topics []string
	for i := range 8 {
		property := fmt.Sprint("p", i)
		in.Sources = append(in.Sources, task.InputSource{Device: "plc", Property: property})
		topics = append(topics, wire.Sensor("edge-a", "default", "plc", property))
	}
	spec := feedSpec("digits", in)
	spec.Model.Postprocess, spec.ModelPath = "softmax", servingtest.File(b, mlp(b))
	p.activate(spec)
	st := &p.services["digits"].stats
	message := []byte(`{"device":"plc","property":"p","value":12.75,"type":"DOUBLE","unit":"C","timestamp":1764000000000}`)

	// No more are on their way than queues hold, so that none is lost.
	const ahead = 512
	deadline := time.Now().Add(5 * time.Minute)
	b.ResetTimer()
	for i := range b.N {
		for int64(i)-st.readings.Load() >= ahead {
			runtime.Gosched()
			if time.Now().After(deadline) {
				b.Fatal("readings are lost")
			}
		}
		// Backwards, so that the source that sets the pace is the last of a row.
		if err := p.app.Publish(b.Context(), topics[7-i%8], 0, false, message); err != nil {
			b.Fatal(err)
		}
	}
	for st.readings.Load() < int64(b.N) {
		runtime.Gosched()
	}
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(float64(b.N)/seconds, "readings/s")
	b.ReportMetric(float64(st.answers.Load())/seconds, "answers/s")
}

// BenchmarkReading is one reading without broker: decoding, row and, each 64
// readings, the tensor.
func BenchmarkReading(b *testing.B) {
	m := newManager(b, nil)
	spec := feedSpec("digits", task.Input{Tensor: "input", Sources: []task.InputSource{{Device: "plc", Property: "p"}}, Window: 64, Stride: 64})
	spec.ModelPath = servingtest.File(b, mlp(b))
	activate(b, m, spec)
	f := m.services["digits"].current.feed
	msg := bus.Message{Topic: wire.Sensor("edge-a", "default", "plc", "p"), Payload: []byte(`{"device":"plc","property":"p","value":12.75,"type":"DOUBLE","unit":"C","timestamp":1764000000000}`)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.router.deliver(msg)
		if i%64 == 63 {
			f.window()
		}
	}
}

// digitJPEG is a drawn figure of 320x240, as a camera sends it.
func digitJPEG(b *testing.B) []byte {
	b.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 320, 240))
	for y := range 240 {
		for x := range 320 {
			dx, dy := float64(x-160)/60, float64(y-120)/90
			v := uint8(20 + (x*7+y*13)%9) // a background that is not flat
			if r := dx*dx + dy*dy; r > 0.55 && r < 1 {
				v = 230
			}
			img.Set(x, y, color.RGBA{v, v, v, 255})
		}
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 85}); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// BenchmarkCameraFrames is a JPEG of 320x240 from the handler of the bus to the
// published result: decoding, preprocessing to 8x8 gray, the digits-sized model.
// Run it with -cpu 1 for what one core does.
func BenchmarkCameraFrames(b *testing.B) {
	m := newManager(b, nil)
	spec := feedSpec("digits")
	spec.Model.Postprocess, spec.ModelPath = "softmax", servingtest.File(b, mlp(b))
	activate(b, m, spec)
	done := make(chan struct{}, 1)
	f := &countingBus{done: done}
	serveBus(b, m, f)
	frame := bus.Message{Topic: wire.InferImage("edge-a", "digits"), Payload: digitJPEG(b)}
	for f.send(frame) == 0 {
		runtime.Gosched()
	}
	<-done
	b.ReportAllocs()
	for b.Loop() {
		f.send(frame)
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
