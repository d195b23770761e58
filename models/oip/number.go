package oip

import (
	"math"
	"strconv"
)

// number is a JSON number: mantissa × 10^exp.
type number struct {
	mantissa uint64
	exp      int
	neg      bool
	integer  bool // written without fraction and exponent
	long     bool // more digits than mantissa holds
}

// scanNumber reads a JSON number at i; end is -1 when there is none.
func scanNumber(b []byte, i int) (n number, end int) {
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	const most = 19 // digits that always fit 64 bits
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		n.mantissa = n.mantissa*10 + uint64(b[i]-'0')
		i++
	}
	digits := i - start
	if digits == 0 || digits > 1 && b[start] == '0' {
		return n, -1
	}
	n.integer = true
	if i < len(b) && b[i] == '.' {
		n.integer = false
		i++
		frac := i
		for i < len(b) && b[i]-'0' <= 9 {
			n.mantissa = n.mantissa*10 + uint64(b[i]-'0')
			i++
		}
		if i == frac {
			return n, -1
		}
		n.exp = frac - i
		digits += i - frac
	}
	n.long = digits > most
	if i < len(b) && b[i]|0x20 == 'e' {
		n.integer = false
		i++
		sign := 1
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			if b[i] == '-' {
				sign = -1
			}
			i++
		}
		first, e := i, 0
		for i < len(b) && b[i]-'0' <= 9 {
			const enough = 100_000 // beyond any float
			if e < enough {
				e = e*10 + int(b[i]-'0')
			}
			i++
		}
		if i == first {
			return n, -1
		}
		n.exp += sign * e
	}
	return n, i
}

// pow10 are the powers of ten that float64 holds exactly.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// quick64 gives the nearest float64 where one exact operation suffices: an
// exact mantissa times or over an exact power of ten.
func (n number) quick64() (float64, bool) {
	if n.long || n.mantissa > 1<<53 || n.exp < -22 || n.exp > 22 {
		return 0, false
	}
	f := float64(n.mantissa)
	if n.exp < 0 {
		f /= pow10[-n.exp]
	} else {
		f *= pow10[n.exp]
	}
	if n.neg {
		f = -f
	}
	return f, true
}

// A float64 that lies half way between two float32 values has tie in the bits
// that rounding to float32 drops.
const dropped, tie = 1<<29 - 1, 1 << 28

// float64 is the nearest float64 to the number whose text is given; false
// when it is out of range.
func (n number) float64(text []byte) (float64, bool) {
	if f, ok := n.quick64(); ok {
		return f, true
	}
	f, err := strconv.ParseFloat(string(text), 64)
	return f, err == nil
}

// float32 is the nearest float32. Rounding the nearest float64 once more is
// right except when it lies exactly between two float32 values.
func (n number) float32(text []byte) (float32, bool) {
	if f, ok := n.quick64(); ok {
		if math.Float64bits(f)&dropped != tie {
			return float32(f), true
		}
	}
	f, err := strconv.ParseFloat(string(text), 32)
	return float32(f), err == nil
}

// quickFloat32 reads a decimal without exponent whose digits fit 53 bits and
// whose end is in sight; end is 0 for any other text. It gives what scanNumber
// and float32 give, in half the time.
func quickFloat32(b []byte, i int) (f float32, end int) {
	neg := i < len(b) && b[i] == '-'
	if neg {
		i++
	}
	const most = 15 // digits that always fit 53 bits
	start, point := i, 0
	var mantissa uint64
	var c byte
	for ; i < len(b); i++ {
		if c = b[i] - '0'; c > 9 {
			break
		}
		mantissa = mantissa*10 + uint64(c)
	}
	if i == start || i == len(b) || b[start] == '0' && i-start > 1 {
		return 0, 0
	}
	digits := i - start
	if b[i] == '.' {
		point = i + 1
		for i++; i < len(b); i++ {
			if c = b[i] - '0'; c > 9 {
				break
			}
			mantissa = mantissa*10 + uint64(c)
		}
		if i == point {
			return 0, 0
		}
		digits += i - point
		point = i - point
	}
	if digits > most || i == len(b) || b[i]|0x20 == 'e' {
		return 0, 0
	}
	v := float64(int64(mantissa))
	if point > 0 {
		v /= pow10[point&0xf]
		if math.Float64bits(v)&dropped == tie {
			return 0, 0
		}
	} else if mantissa > 1<<24 {
		return 0, 0
	}
	if neg {
		v = -v
	}
	return float32(v), i
}

// HalfBits rounds f to the nearest IEEE 754 binary16, ties to even; what is
// beyond its range becomes an infinity.
func HalfBits(f float64) uint16 {
	sign := uint16(math.Float64bits(f) >> 48 & 0x8000)
	f = math.Abs(f)
	const (
		infinity = 0x7c00
		quietNaN = 0x7e00
		overflow = 65520 // half way from the largest finite value to the next
		smallest = 1.0 / (1 << 14)
	)
	switch {
	case f != f:
		return sign | quietNaN
	case f >= overflow:
		return sign | infinity
	case f < smallest: // subnormal: units of 2^-24
		return sign | uint16(math.RoundToEven(f*(1<<24)))
	}
	frac, exp := math.Frexp(f) // f = frac × 2^exp, frac in [0.5, 1)
	m := uint16(math.RoundToEven(frac * (1 << 11)))
	// m is 1024…2048; a carry to 2048 raises the exponent by the addition.
	return sign | (uint16(exp+13)<<10 + m)
}

// HalfFloat is the value of IEEE 754 binary16 bits.
func HalfFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case 0:
		f := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(f) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// integral is the magnitude of an integer whose text is given; false when it
// exceeds 64 bits.
func (n number) integral(text []byte) (uint64, bool) {
	if !n.long {
		return n.mantissa, true
	}
	if n.neg {
		text = text[1:]
	}
	v, err := strconv.ParseUint(string(text), 10, 64)
	return v, err == nil
}
