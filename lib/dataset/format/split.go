package format

import (
	"crypto/sha256"
	"encoding/binary"
)

// InTrain tells whether a sample is for training, the others are for
// evaluation. It depends on nothing but the arguments: not on when the sample
// came or what came with it, and equal samples are always on the same side, so
// that nothing is evaluated on what it was trained on. Of many samples the share
// prob is for training.
func InTrain(seed int64, sample []byte, prob float64) bool {
	var b [512]byte // most samples fit; others are copied to the heap
	keyed := append(binary.BigEndian.AppendUint64(b[:0], uint64(seed)), sample...)
	sum := sha256.Sum256(keyed)
	const bits = 53 // of a float64: the comparison is exact
	return float64(binary.BigEndian.Uint64(sum[:8])>>(64-bits)) < prob*(1<<bits)
}

// FirstInTrain is how many of n samples that came together are for training
// when the first ones are, as in the reference system: prob times n, rounded
// down.
func FirstInTrain(n int64, prob float64) int64 { return int64(float64(n) * prob) }
