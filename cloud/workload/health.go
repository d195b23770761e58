package workload

import (
	"cmp"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Health of one worker.
type Health int

// A worker is Starting until it is Active; a job's pod ends Succeeded or Failed.
// Active and Failed may follow each other in a service.
const (
	Starting Health = iota
	Active
	Succeeded
	Failed
)

// Report is a worker's health, in words where it is not well.
type Report struct {
	Health  Health
	Message string // of what is not Active or Succeeded
}

// Reports sums up what an owner has.
func (s *State) Reports() []Report {
	var out []Report
	for i := range s.Deployments {
		out = append(out, ofDeployment(&s.Deployments[i]))
	}
	for i := range s.Pods {
		out = append(out, ofPod(&s.Pods[i]))
	}
	return out
}

func ofDeployment(d *appsv1.Deployment) Report {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue ||
			c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse {
			return Report{Failed, fmt.Sprintf("Deployment %s: %s: %s", d.Name, c.Reason, c.Message)}
		}
	}
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	st := &d.Status
	if st.ObservedGeneration >= d.Generation && d.Generation > 0 && st.AvailableReplicas >= wanted && st.UpdatedReplicas >= wanted {
		return Report{Active, ""}
	}
	return Report{Starting, fmt.Sprintf("Deployment %s: %d of %d pods are available", d.Name, min(st.AvailableReplicas, st.UpdatedReplicas), wanted)}
}

func ofPod(p *corev1.Pod) Report {
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		return Report{Succeeded, ""}
	case corev1.PodFailed:
		return Report{Failed, fmt.Sprintf("pod %s: %s", p.Name, cmp.Or(p.Status.Message, p.Status.Reason, exit(p), "failed"))}
	case corev1.PodRunning:
		if waiting(p) == "" {
			return Report{Active, ""}
		}
	}
	return Report{Starting, fmt.Sprintf("pod %s: %s", p.Name, cmp.Or(waiting(p), "has not started"))}
}

// exit says which container ended a failed pod.
func exit(p *corev1.Pod) string {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s ended with code %d: %s", c.Name, t.ExitCode, cmp.Or(t.Message, t.Reason))
		}
	}
	return ""
}

// waiting says what keeps a pod from starting.
func waiting(p *corev1.Pod) string {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && w.Reason != "" {
			return fmt.Sprintf("container %s: %s", c.Name, cmp.Or(w.Message, w.Reason))
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return cmp.Or(c.Message, c.Reason)
		}
	}
	return ""
}

// End is when the last of the pods ended.
func (s *State) End() time.Time {
	var end time.Time
	for i := range s.Pods {
		if t := endOf(&s.Pods[i]); t.After(end) {
			end = t
		}
	}
	return end
}
