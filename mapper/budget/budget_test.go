package budget_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/mapper/budget"
)

func TestTasksGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(10, 4)
		take := func(p budget.Priority) time.Duration {
			since := time.Now()
			if err := b.Wait(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			return time.Since(since)
		}
		// Sensors leave half of the burst.
		for i, want := range []time.Duration{0, 0, 100 * time.Millisecond} {
			if got := take(budget.Sensor); got != want {
				t.Errorf("sensor %d waited %v, expected %v", i, got, want)
			}
		}
		for range 2 {
			if got := take(budget.Task); got != 0 {
				t.Errorf("a task waited %v", got)
			}
		}
		// The bucket is empty: whoever comes waits, tasks before sensors.
		var mu sync.Mutex
		var order []budget.Priority
		var wg sync.WaitGroup
		for _, p := range []budget.Priority{budget.Sensor, budget.Sensor, budget.Task, budget.Task} {
			wg.Go(func() {
				take(p)
				mu.Lock()
				order = append(order, p)
				mu.Unlock()
			})
			synctest.Wait()
		}
		wg.Wait()
		for i, want := range []budget.Priority{budget.Task, budget.Task, budget.Sensor, budget.Sensor} {
			if order[i] != want {
				t.Fatalf("order %v", order)
			}
		}
	})
}

func TestRateHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(20, 10)
		since := time.Now()
		var wg sync.WaitGroup
		for i := range 110 {
			wg.Go(func() { _ = b.Wait(t.Context(), budget.Priority(i%2)) })
		}
		wg.Wait()
		if d := time.Since(since); d < 4900*time.Millisecond || d > 5400*time.Millisecond {
			t.Errorf("110 at 20 a second and a burst of 10 took %v", d)
		}
		if n := b.Spent(budget.Task) + b.Spent(budget.Sensor); n != 110 {
			t.Errorf("%d spent", n)
		}
	})
}

func TestWhoGivesUpTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1, 1)
		if err := b.Wait(t.Context(), budget.Task); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := b.Wait(ctx, budget.Task); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		since := time.Now()
		if err := b.Wait(t.Context(), budget.Sensor); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(since); d != 500*time.Millisecond {
			t.Errorf("waited %v after another gave up", d)
		}
	})
}
