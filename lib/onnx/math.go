package onnx

import "math"

// exp32 is e^x to about 2 ulp, a third of the cost of math.Exp. Results below
// the smallest normal number are 0. Polynomial: Cephes expf.
func exp32(x float32) float32 {
	switch {
	case x != x:
		return x
	case x > 88.72283:
		return float32(math.Inf(1))
	case x < -87.33655:
		return 0
	}
	n := int32(x*1.44269504 + 0.5)
	if x*1.44269504+0.5 < float32(n) { // floor, not truncation
		n--
	}
	fn := float32(n)
	x -= fn * 0.693359375
	x -= fn * -2.12194440e-4
	y := float32(1.9875691500e-4)
	y = y*x + 1.3981999507e-3
	y = y*x + 8.3334519073e-3
	y = y*x + 4.1665795894e-2
	y = y*x + 1.6666665459e-1
	y = y*x + 5.0000001201e-1
	y = y*x*x + x + 1
	if n == 128 { // 2^128 is no float32
		return y * 2 * math.Float32frombits(0x7f000000)
	}
	return y * math.Float32frombits(uint32(n+127)<<23)
}

// tanh32 follows Cephes tanhf: a polynomial near 0, where 1-e^-2x would
// cancel, and the exponential elsewhere.
func tanh32(x float32) float32 {
	a := x
	if a < 0 {
		a = -a
	}
	if a < 0.625 {
		z := x * x
		y := float32(-5.70498872745e-3)
		y = y*z + 2.06390887954e-2
		y = y*z - 5.37397155531e-2
		y = y*z + 1.33314422036e-1
		y = y*z - 3.33332819422e-1
		return x + x*z*y
	}
	t := 1 - 2/(exp32(2*a)+1)
	if x < 0 {
		return -t
	}
	return t
}

func sigmoid32(x float32) float32 { return 1 / (1 + exp32(-x)) }
