package hardexample

import "math"

// tolerance is how far outside [0,1] a probability may lie: rounding in
// float32 softmax goes that far.
const tolerance = 1e-6

// Detection is one box that a detector found.
type Detection struct {
	Box   [4]float32 // x1, y1, x2, y2, in any unit
	Score float32    // confidence in [0,1]
	Label string
}

// Output is what a model said of one sample: class probabilities, or
// detections, or neither when it found nothing. It is not changed.
type Output struct {
	// Probabilities are those of a classifier, one per class; a single one is
	// that of a yes/no question.
	Probabilities []float32
	// Detections are used when there are no probabilities.
	Detections []Detection
}

// scores is the list that Sedna's box rules look at: the detections' scores,
// or the highest probability as a list of one.
func (o Output) scores(room []float64) []float64 {
	room = room[:0]
	if len(o.Probabilities) > 0 {
		top := o.Probabilities[0]
		for _, p := range o.Probabilities {
			top = max(top, p) // NaN stays NaN
		}
		return append(room, float64(top))
	}
	for _, d := range o.Detections {
		room = append(room, float64(d.Score))
	}
	return room
}

// empty says whether there is nothing to judge.
func (o Output) empty() bool { return len(o.Probabilities) == 0 && len(o.Detections) == 0 }

// sound says whether every probability and score is one. Probabilities that
// are all 0 are the output of a broken model.
func (o Output) sound() bool {
	var sum float32
	for _, p := range o.Probabilities {
		if !(p >= -tolerance && p <= 1+tolerance) {
			return false
		}
		sum += p
	}
	for _, d := range o.Detections {
		if !(d.Score >= -tolerance && d.Score <= 1+tolerance) {
			return false
		}
	}
	return len(o.Probabilities) == 0 || sum > tolerance
}

// pLogP is p·ln p with its limit 0 at 0.
func pLogP(p float64) float64 {
	if p <= 0 {
		return 0
	}
	return p * math.Log(min(p, 1))
}

// certainty is 1 minus the entropy of a yes/no answer in bits.
func certainty(p float64) float64 {
	p = max(0, min(1, p))
	return 1 + (pLogP(p)+pLogP(1-p))/math.Ln2
}
