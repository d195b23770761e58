package main

import "testing"

// TestBuildModel holds the model to what the example needs of it.
func TestBuildModel(t *testing.T) {
	for seed := int64(1); seed <= 3; seed++ {
		_, held, err := buildModel(t.Context(), seed)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %+v", seed, held)
		if held.All.Precision < 0.88 || held.All.Recall < 0.82 || held.Settled.Precision < 0.92 || held.Settled.Recall < 0.9 {
			t.Errorf("seed %d: %+v", seed, held)
		}
	}
}
