package onnx

var matrixOps = map[string]operator{
	"Gemm":   {minIn: 2, maxIn: 3, build: buildGemm},
	"MatMul": {minIn: 2, maxIn: 2, build: buildMatMul},
}

// gemm is out = alpha·op(a)·op(b) + beta·c; slot c is -1 when there is none.
type gemm struct {
	a, b, c, out   int
	transA, transB bool
	alpha, beta    float32
}

func buildGemm(b *builder) (kernel, error) {
	num, err := b.numeric()
	if err != nil {
		return nil, err
	}
	if err := b.sameType(0); err != nil {
		return nil, err
	}
	g := gemm{a: b.in[0], b: b.in[1], c: b.slot(2), out: b.out[0]}
	transA, err := b.int("transA", 0)
	if err != nil {
		return nil, err
	}
	transB, err := b.int("transB", 0)
	if err != nil {
		return nil, err
	}
	g.transA, g.transB = transA != 0, transB != 0
	if g.alpha, err = b.float("alpha", 1); err != nil {
		return nil, err
	}
	if g.beta, err = b.float("beta", 1); err != nil {
		return nil, err
	}
	if err := b.gemmShape(g); err != nil {
		return nil, err
	}
	if k := b.denseGemm(g); k != nil {
		return k, nil
	}
	return num.gemm(g), nil
}

func (b *builder) gemmShape(g gemm) error {
	x, w := b.meta(0), b.meta(1)
	if !x.rank || !w.rank {
		b.set(0, ranked(x.typ, -1, -1))
		return nil
	}
	m, n, _, err := g.dims(x.shape, w.shape)
	if err != nil {
		return err
	}
	if c := b.meta(2); c.rank {
		if err := oneWay(c.shape, m, n); err != nil {
			return err
		}
	}
	b.set(0, ranked(x.typ, m, n))
	return nil
}

// dims are the sizes of the product; -1 where not known.
func (g gemm) dims(a, b []int) (m, n, k int, err error) {
	if len(a) != 2 || len(b) != 2 {
		return 0, 0, 0, mismatch("shapes %v and %v, expected two matrices", a, b)
	}
	m, k, k2, n := a[0], a[1], b[0], b[1]
	if g.transA {
		m, k = k, m
	}
	if g.transB {
		k2, n = n, k2
	}
	if k >= 0 && k2 >= 0 && k != k2 {
		return 0, 0, 0, mismatch("inner dimensions are %d and %d", k, k2)
	}
	return m, n, max(k, k2), nil
}

// oneWay says whether a bias of shape c broadcasts to [m,n].
func oneWay(c []int, m, n int) error {
	want := []int{m, n}
	for i := range c {
		j := i - len(c) + 2
		if j < 0 && c[i] == 1 {
			continue
		}
		if j < 0 || c[i] != 1 && c[i] >= 0 && want[j] >= 0 && c[i] != want[j] {
			return mismatch("bias of shape %v for a result of %v", c, want)
		}
	}
	return nil
}

// denseGemm is the kernel for what nearly every trained model has: float32, a
// constant weight matrix, and a constant bias per output or none. Weights are
// scaled and laid out once. It is nil for any other Gemm.
func (b *builder) denseGemm(g gemm) kernel {
	w, c := b.meta(1), b.meta(2)
	if w.typ != Float32 || w.konst == nil || len(w.shape) != 2 || g.transA || b.has(2) && c.konst == nil {
		return nil
	}
	rows, cols := w.shape[0], w.shape[1]
	k, n, weights := rows, cols, w.konst.f32
	if g.transB {
		k, n = cols, rows
	} else {
		weights = transposed(weights, k, n)
	}
	if g.alpha != 1 {
		weights = scaled(weights, g.alpha)
	}
	var bias []float32
	if b.has(2) {
		switch cn := size(c.shape); {
		case cn == 1:
			bias = make([]float32, n)
			for i := range bias {
				bias[i] = g.beta * c.konst.f32[0]
			}
		case cn == n && c.shape[len(c.shape)-1] == n:
			bias = scaled(c.konst.f32, g.beta)
		default:
			return nil
		}
	}
	return denseKernel(g.a, g.out, weights, bias, n, k, true)
}

// denseKernel multiplies the last dimension of slot in by constant weights.
// matrix demands that the input has two dimensions.
func denseKernel(in, out int, wT, bias []float32, n, k int, matrix bool) kernel {
	return func(f *frame) error {
		x := &f.vals[in]
		last := len(x.shape) - 1
		if last < 0 || x.shape[last] != k || matrix && last != 1 {
			return mismatch("input of shape %v for weights [%d,%d]", x.shape, k, n)
		}
		var room [8]int
		shape := append(room[:0], x.shape[:last]...)
		m := size(shape)
		shape = append(shape, n)
		dst, err := alloc[float32](f, out, shape)
		if err != nil {
			return err
		}
		return dense(f.ctx, dst, x.f32, wT, bias, m, n, k)
	}
}

func scaled(v []float32, by float32) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}

func (numbers[T]) gemm(g gemm) kernel {
	return func(f *frame) error {
		a, b := &f.vals[g.a], &f.vals[g.b]
		m, n, k, err := g.dims(a.shape, b.shape)
		if err != nil {
			return err
		}
		shape := []int{m, n}
		dst, err := alloc[T](f, g.out, shape)
		if err != nil {
			return err
		}
		if err := multiply(f, dst, get[T](a), get[T](b), m, n, k, g.transA, g.transB, g.alpha); err != nil {
			return err
		}
		if g.c < 0 {
			return nil
		}
		c := &f.vals[g.c]
		if err := oneWay(c.shape, m, n); err != nil {
			return err
		}
		beta := T(g.beta)
		return zip(dst, dst, get[T](c), shape, shape, c.shape, func(dst, a, b []T) error {
			for i := range dst {
				dst[i] = a[i*min(1, len(a)-1)] + beta*b[i*min(1, len(b)-1)]
			}
			return nil
		})
	}
}

// multiply is dst[m,n] = alpha·op(a)·op(b) for any number type.
func multiply[T number](f *frame, dst, a, b []T, m, n, k int, transA, transB bool, alpha float32) error {
	if d, ok := any(dst).([]float32); ok {
		return product(f.ctx, d, any(a).([]float32), any(b).([]float32), m, n, k, transA, transB, alpha)
	}
	rowA, stepA, rowB, stepB := k, 1, 1, n
	if transA {
		rowA, stepA = 1, m
	}
	if transB {
		rowB, stepB = k, 1
	}
	for i := range m {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		for j := range n {
			var sum T
			for l := range k {
				sum += a[i*rowA+l*stepA] * b[j*rowB+l*stepB]
			}
			if alpha != 1 {
				sum = T(float64(alpha) * float64(sum))
			}
			dst[i*n+j] = sum
		}
	}
	return nil
}

func buildMatMul(b *builder) (kernel, error) {
	num, err := b.numeric()
	if err != nil {
		return nil, err
	}
	if err := b.sameType(0); err != nil {
		return nil, err
	}
	x, w := b.meta(0), b.meta(1)
	b.set(0, meta{typ: x.typ})
	if x.rank && w.rank {
		mm, err := matmulDims(x.shape, w.shape)
		if err != nil {
			return nil, err
		}
		b.set(0, ranked(x.typ, mm.shape...))
	}
	if w.konst != nil && w.typ == Float32 && len(w.shape) == 2 {
		k, n := w.shape[0], w.shape[1]
		return denseKernel(b.in[0], b.out[0], transposed(w.konst.f32, k, n), nil, n, k, false), nil
	}
	return num.matmul(b.in[0], b.in[1], b.out[0]), nil
}

// matmulShape is a batch of products: batch is the broadcast of the leading
// dimensions, shape the result's.
type matmulShape struct {
	m, n, k      int
	batch, shape []int
	aBatch       []int
	bBatch       []int
}

func matmulDims(a, b []int) (matmulShape, error) {
	if len(a) == 0 || len(b) == 0 {
		return matmulShape{}, mismatch("a scalar cannot be multiplied as a matrix")
	}
	s := matmulShape{m: 1, n: 1, k: a[len(a)-1]}
	k2 := b[0]
	if len(a) > 1 {
		s.m, s.aBatch = a[len(a)-2], a[:len(a)-2]
	}
	if len(b) > 1 {
		k2, s.n, s.bBatch = b[len(b)-2], b[len(b)-1], b[:len(b)-2]
	}
	if s.k >= 0 && k2 >= 0 && s.k != k2 {
		return s, mismatch("inner dimensions of %v and %v differ", a, b)
	}
	var err error
	if s.batch, err = broadcast(nil, s.aBatch, s.bBatch); err != nil {
		return s, err
	}
	s.shape = append(s.shape, s.batch...)
	if len(a) > 1 {
		s.shape = append(s.shape, s.m)
	}
	if len(b) > 1 {
		s.shape = append(s.shape, s.n)
	}
	return s, nil
}

func (numbers[T]) matmul(a, b, out int) kernel {
	return func(f *frame) error {
		x, y := &f.vals[a], &f.vals[b]
		s, err := matmulDims(x.shape, y.shape)
		if err != nil {
			return err
		}
		dst, err := alloc[T](f, out, s.shape)
		if err != nil {
			return err
		}
		// Batches are walked with zip over their numbers, which broadcasts.
		batches := size(s.batch)
		if _, err := f.charge(s.batch); err != nil {
			return err
		}
		at := make([]int, batches)
		xs, ys := get[T](x), get[T](y)
		next := 0
		return zip(at, sequence(size(s.aBatch)), sequence(size(s.bBatch)), s.batch, s.aBatch, s.bBatch,
			func(run, ia, ib []int) error {
				for i := range run {
					p, q := ia[i*min(1, len(ia)-1)], ib[i*min(1, len(ib)-1)]
					d := dst[next*s.m*s.n : (next+1)*s.m*s.n]
					next++
					err := multiply(f, d, xs[p*s.m*s.k:(p+1)*s.m*s.k], ys[q*s.k*s.n:(q+1)*s.k*s.n], s.m, s.n, s.k, false, false, 1)
					if err != nil {
						return err
					}
				}
				return nil
			})
	}
}

func sequence(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
