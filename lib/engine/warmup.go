package engine

import (
	"context"
	"fmt"
)

// WarmUp runs the model once on zeros, with 1 for every dynamic dimension. It
// fails where the model would fail on its first real request, and moves the
// cost of first allocations before serving. A model with an input of unknown
// rank is not run: no input can be made up for it.
func WarmUp(ctx context.Context, s Session) error {
	in, ok, err := zeroInput(s.Inputs())
	if err != nil || !ok {
		return err
	}
	if _, err := s.Infer(ctx, in); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	return nil
}

func zeroInput(infos []TensorInfo) ([]Tensor, bool, error) {
	in := make([]Tensor, len(infos))
	for i, info := range infos {
		if info.Shape == nil {
			return nil, false, nil
		}
		shape := make([]int64, len(info.Shape))
		for j, d := range info.Shape {
			if d < 0 {
				d = 1
			}
			shape[j] = d
		}
		n, ok := Elements(shape)
		if limit := (Limits{}).WithDefaults().MaxElements; !ok || n > limit {
			return nil, false, fmt.Errorf("warm up: input %q has more than %d elements", info.Name, limit)
		}
		data, err := Zero(info.Datatype, int(n))
		if err != nil {
			return nil, false, fmt.Errorf("warm up: input %q: %w", info.Name, err)
		}
		in[i] = Tensor{Name: info.Name, Datatype: info.Datatype, Shape: shape, Data: data}
	}
	return in, true, nil
}
