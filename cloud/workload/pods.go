package workload

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A failed pod is made again after firstBackoff, and then after twice as long
// each time, up to maxBackoff.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 360 * time.Second
)

// slot brings the pod of one slot forward. At most one pod of a slot runs at a
// time: a pod that is to be replaced is gone before the next is made, since two
// would train, or write results, at once.
func (a *application) slot(want *corev1.Pod, w *Wish) {
	slot, hash := want.Labels[LabelSlot], want.Annotations[AnnotationHash]
	var current *corev1.Pod // the latest attempt at what is wanted
	leaving := false
	for _, o := range a.have {
		p, ok := o.(*corev1.Pod)
		if !ok || p.Labels[LabelSlot] != slot {
			continue
		}
		mine := p.Labels[Label(a.owner.Kind, "uid")] == string(a.owner.UID) && p.Annotations[AnnotationHash] == hash && p.DeletionTimestamp.IsZero()
		switch {
		case mine && (current == nil || attempt(p) > attempt(current)):
			leaving = leaving || current != nil && !terminal(current)
			current = p
		case !terminal(p):
			leaving = true
		}
	}
	switch {
	case w.Ended:
		// What has finished stays, for its log; what still runs has nothing left to do.
		if current != nil && terminal(current) {
			a.keep[current] = true
		}
	case current != nil && !a.again(current, w):
		a.keep[current] = true
		a.state.Pods = append(a.state.Pods, *current)
	case leaving:
		a.state.Waiting = append(a.state.Waiting, want.Labels[LabelSlot])
		a.state.Pods = append(a.state.Pods, *want)
	default:
		next := want.DeepCopy()
		if current != nil {
			namePod(next, attempt(current)+1)
		}
		// The one that failed goes only when its successor is there, as it
		// knows how many there were.
		if made := a.apply(next); made == nil && current != nil {
			a.keep[current] = true
		}
		a.state.Pods = append(a.state.Pods, *next)
	}
}

// again tells whether a pod is to be made again now, and notes when it will be.
func (a *application) again(p *corev1.Pod, w *Wish) bool {
	switch {
	case !terminal(p), w.Ends && p.Status.Phase == corev1.PodSucceeded:
		return false
	case w.Ends && attempt(p) >= w.Retries:
		a.state.Lost++
		return false
	}
	left := backoff(attempt(p)) - a.Now().Sub(endOf(p))
	if left <= 0 {
		return true
	}
	if a.state.Retry == 0 || left < a.state.Retry {
		a.state.Retry = left
	}
	return false
}

func terminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func attempt(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[AnnotationAttempt])
	if err != nil {
		return 0
	}
	return n
}

// backoff is the time between the end of an attempt and the next.
func backoff(attempt int) time.Duration {
	if attempt > 10 {
		return maxBackoff
	}
	return min(firstBackoff<<attempt, maxBackoff)
}

// endOf is when a pod ended: its last container or, where nothing is said of
// containers, its last condition; else when it was made.
func endOf(p *corev1.Pod) time.Time {
	var end time.Time
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(end) {
			end = t.FinishedAt.Time
		}
	}
	if !end.IsZero() {
		return end
	}
	end = p.CreationTimestamp.Time
	for _, c := range p.Status.Conditions {
		if c.LastTransitionTime.After(end) {
			end = c.LastTransitionTime.Time
		}
	}
	return end
}
