package onnx

// broadcast computes the shape of a NumPy-broadcast result into dst. -1 marks
// a dimension that is not known yet; it is taken to fit.
func broadcast(dst, a, b []int) ([]int, error) {
	n := max(len(a), len(b))
	for i := range n {
		da, db := 1, 1
		if j := i - n + len(a); j >= 0 {
			da = a[j]
		}
		if j := i - n + len(b); j >= 0 {
			db = b[j]
		}
		switch {
		case da == db || db == 1:
			dst = append(dst, da)
		case da == 1 || da < 0:
			dst = append(dst, db)
		case db < 0:
			dst = append(dst, da)
		default:
			return dst, mismatch("shapes %v and %v do not broadcast", a, b)
		}
	}
	return dst, nil
}

// span is a group of neighbouring dimensions in which each operand either
// advances with the result (stride > 0) or stays (stride 0).
type span struct{ n, as, bs int }

// spans merges the dimensions of shape into as few groups as possible, the
// innermost first.
func spans(list []span, shape, a, b []int) []span {
	as, bs := 1, 1 // elements of the operand inside the current dimension
	for i := len(shape) - 1; i >= 0; i-- {
		d := shape[i]
		if d == 1 {
			continue
		}
		s := span{n: d}
		if j := i - len(shape) + len(a); j >= 0 && a[j] != 1 {
			s.as, as = as, as*d
		}
		if j := i - len(shape) + len(b); j >= 0 && b[j] != 1 {
			s.bs, bs = bs, bs*d
		}
		if last := len(list) - 1; last >= 0 && (list[last].as > 0) == (s.as > 0) && (list[last].bs > 0) == (s.bs > 0) {
			list[last].n *= d
			continue
		}
		list = append(list, s)
	}
	return list
}

// zip calls apply on runs of elements. An operand that stays within the run is
// passed as one element, unless the run is a single element.
func zip[T any](dst, a, b []T, shape, ashape, bshape []int, apply func(dst, a, b []T) error) error {
	if len(dst) == 0 {
		return nil
	}
	var room [8]span
	groups := spans(room[:0], shape, ashape, bshape)
	if len(groups) == 0 {
		return apply(dst, a, b)
	}
	run := groups[0]
	var at [8]int
	index := append(at[:0], make([]int, len(groups))...)
	ai, bi := 0, 0
	for di := 0; di < len(dst); di += run.n {
		na, nb := 1, 1
		if run.as > 0 {
			na = run.n
		}
		if run.bs > 0 {
			nb = run.n
		}
		if err := apply(dst[di:di+run.n], a[ai:ai+na], b[bi:bi+nb]); err != nil {
			return err
		}
		for g := 1; g < len(groups); g++ {
			index[g]++
			ai += groups[g].as
			bi += groups[g].bs
			if index[g] < groups[g].n {
				break
			}
			ai -= groups[g].n * groups[g].as
			bi -= groups[g].n * groups[g].bs
			index[g] = 0
		}
	}
	return nil
}
