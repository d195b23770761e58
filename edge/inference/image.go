package inference

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"

	"golang.org/x/image/draw"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Content types of images that are read.
const (
	typePNG  = "image/png"
	typeJPEG = "image/jpeg"
)

// letterboxGray fills what an image of another aspect leaves free.
const letterboxGray = 114

// imagePlan says how an image becomes the model's input.
type imagePlan struct {
	err           error // why there is none
	input         string
	datatype      string
	shape         []int64
	width, height int
	letterbox     bool
	order         []int // channels in the order of the input: 0 red, 1 green, 2 blue; one entry for gray
	planar        bool  // channel by channel instead of pixel by pixel
	scale         float64
	mean, std     []float64 // one per channel
}

// planImage reads p and checks it against the model's inputs. Without p a model
// that takes n×n numbers gets the gray values of n rows, scaled to 0…1.
func planImage(p *task.Preprocess, inputs []engine.TensorInfo) imagePlan {
	plan, err := makeImagePlan(p, inputs)
	plan.err = err
	return plan
}

func makeImagePlan(p *task.Preprocess, inputs []engine.TensorInfo) (imagePlan, error) {
	if len(inputs) != 1 || inputs[0].Datatype != engine.FP32 && inputs[0].Datatype != engine.Uint8 {
		return imagePlan{}, unfit("the model does not take one tensor of FP32 or UINT8")
	}
	in := inputs[0]
	if p == nil {
		var err error
		if p, err = square(in.Shape); err != nil {
			return imagePlan{}, err
		}
	}
	if p.Width < 1 || p.Height < 1 || p.Width > maxSide || p.Height > maxSide {
		return imagePlan{}, unfit("width and height are %d and %d, expected 1 to %d", p.Width, p.Height, maxSide)
	}
	plan := imagePlan{input: in.Name, datatype: in.Datatype, width: p.Width, height: p.Height, scale: p.Scale}
	if plan.scale == 0 {
		plan.scale = 1
	}
	switch p.Resize {
	case "", "stretch":
	case "letterbox":
		plan.letterbox = true
	default:
		return imagePlan{}, unfit("resize is %.40q, expected stretch or letterbox", p.Resize)
	}
	switch p.Channels {
	case "", "RGB":
		plan.order = []int{0, 1, 2}
	case "BGR":
		plan.order = []int{2, 1, 0}
	case "GRAY":
		plan.order = []int{0}
	default:
		return imagePlan{}, unfit("channels is %.40q, expected RGB, BGR or GRAY", p.Channels)
	}
	c, h, w := int64(len(plan.order)), int64(p.Height), int64(p.Width)
	switch p.Layout {
	case "", "NCHW":
		plan.planar, plan.shape = true, []int64{1, c, h, w}
	case "NHWC":
		plan.shape = []int64{1, h, w, c}
	case "FLAT":
		if plan.shape = []int64{1, h * w * c}; len(in.Shape) == 1 {
			plan.shape = plan.shape[1:]
		}
	default:
		return imagePlan{}, unfit("layout is %.40q, expected NCHW, NHWC or FLAT", p.Layout)
	}
	meta := oip.TensorMetadata{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape}
	if !meta.Fits(&oip.Tensor{Name: in.Name, Datatype: in.Datatype, Shape: plan.shape}) {
		return imagePlan{}, unfit("gives shape %v, the model takes %v", plan.shape, in.Shape)
	}
	var err error
	if plan.mean, err = perChannel("mean", p.Mean, len(plan.order), 0); err != nil {
		return imagePlan{}, err
	}
	plan.std, err = perChannel("std", p.Std, len(plan.order), 1)
	return plan, err
}

// maxSide bounds what an image is resized to.
const maxSide = 8192

// square is the preprocessing of a model that takes n×n numbers in a row.
func square(shape []int64) (*task.Preprocess, error) {
	n := int64(0)
	if rank := len(shape); rank == 1 || rank == 2 && shape[0] <= 1 {
		n = shape[rank-1]
	}
	side := int64(math.Sqrt(float64(n)))
	if n < 1 || side*side != n {
		return nil, unfit("is missing, and the model's input of shape %v is no row of n×n numbers", shape)
	}
	return &task.Preprocess{Width: int(side), Height: int(side), Channels: "GRAY", Layout: "FLAT", Scale: 1.0 / 255}, nil
}

// perChannel gives each channel its value.
func perChannel(name string, values []float64, channels int, absent float64) ([]float64, error) {
	switch len(values) {
	case 0, 1, channels:
	default:
		return nil, unfit("%s has %d values for %d channels", name, len(values), channels)
	}
	out := make([]float64, channels)
	for i := range out {
		switch {
		case len(values) == 0:
			out[i] = absent
		case len(values) == 1:
			out[i] = values[0]
		default:
			out[i] = values[i]
		}
		if name == "std" && out[i] == 0 {
			return nil, unfit("std is 0")
		}
	}
	return out, nil
}

func unfit(format string, args ...any) error {
	return wire.E(wire.FailedPrecondition, "model.preprocess", fmt.Sprintf(format, args...), "set preprocess in the Model to what the model takes")
}

// decodeImage reads a PNG or JPEG. Its size is checked before its pixels are
// touched.
func decodeImage(contentType string, body []byte, maxPixels int64) (image.Image, error) {
	var config func([]byte) (image.Config, error)
	var decode func([]byte) (image.Image, error)
	switch contentType {
	case typePNG:
		config = func(b []byte) (image.Config, error) { return png.DecodeConfig(bytes.NewReader(b)) }
		decode = func(b []byte) (image.Image, error) { return png.Decode(bytes.NewReader(b)) }
	case typeJPEG:
		config = func(b []byte) (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(b)) }
		decode = func(b []byte) (image.Image, error) { return jpeg.Decode(bytes.NewReader(b)) }
	default:
		return nil, wire.E(wire.UnsupportedMedia, "", fmt.Sprintf("content type is %.80q, expected %s or %s", contentType, typePNG, typeJPEG), "")
	}
	c, err := config(body)
	if err != nil {
		return nil, wire.E(wire.InvalidArgument, "", "the body is no "+contentType+": "+err.Error(), "")
	}
	if c.Width < 1 || c.Height < 1 {
		return nil, wire.E(wire.InvalidArgument, "", "the image has no pixels", "")
	}
	if pixels := int64(c.Width) * int64(c.Height); pixels > maxPixels {
		return nil, wire.E(wire.TooLarge, "", fmt.Sprintf("image of %dx%d, at most %d pixels are taken", c.Width, c.Height, maxPixels), "")
	}
	img, err := decode(body)
	if err != nil {
		return nil, wire.E(wire.InvalidArgument, "", "the body is no "+contentType+": "+err.Error(), "")
	}
	return img, nil
}

// tensor makes the model's input of an image. What is transparent is black.
func (p *imagePlan) tensor(img image.Image) oip.Tensor {
	canvas := p.resize(img)
	n := p.width * p.height
	values := make([]float32, n*len(p.order))
	for i := range n {
		px := canvas.Pix[4*i : 4*i+3 : 4*i+3]
		for k, channel := range p.order {
			v := float64(px[channel])
			if len(p.order) == 1 {
				v = luma(px)
			}
			at := i*len(p.order) + k
			if p.planar {
				at = k*n + i
			}
			values[at] = float32((v*p.scale - p.mean[k]) / p.std[k])
		}
	}
	t := oip.Tensor{Name: p.input, Datatype: p.datatype, Shape: p.shape, Data: values}
	if p.datatype == engine.Uint8 {
		t.Data = toBytes(values)
	}
	return t
}

// luma is the gray value of a pixel, as color.GrayModel has it.
func luma(px []byte) float64 {
	return float64(color.GrayModel.Convert(color.RGBA{px[0], px[1], px[2], 0xff}).(color.Gray).Y)
}

func toBytes(values []float32) []uint8 {
	out := make([]uint8, len(values))
	for i, v := range values {
		out[i] = uint8(max(0, min(255, math.Round(float64(v)))))
	}
	return out
}

// resize draws the image on a canvas of the plan's size.
func (p *imagePlan) resize(img image.Image) *image.RGBA {
	canvas := image.NewRGBA(image.Rect(0, 0, p.width, p.height))
	from, to := img.Bounds(), canvas.Bounds()
	if p.letterbox && from.Dx()*p.height != from.Dy()*p.width {
		gray := image.NewUniform(color.Gray{letterboxGray})
		draw.Draw(canvas, to, gray, image.Point{}, draw.Src)
		f := min(float64(p.width)/float64(from.Dx()), float64(p.height)/float64(from.Dy()))
		w, h := max(1, int(math.Round(float64(from.Dx())*f))), max(1, int(math.Round(float64(from.Dy())*f)))
		to = image.Rect(0, 0, w, h).Add(image.Pt((p.width-w)/2, (p.height-h)/2))
	}
	if from.Size() == to.Size() {
		draw.Draw(canvas, to, img, from.Min, draw.Src)
	} else {
		draw.ApproxBiLinear.Scale(canvas, to, img, from, draw.Src, nil)
	}
	return canvas
}
