// Package workload makes the objects of Kubernetes in which workers run. Render
// is pure: an owner and a worker's template and parameters become Pods,
// Deployments, Services and autoscalers with the names, labels, environment and
// volumes that KubeEdge Sedna's users know. Engine makes the cluster have them:
// by server-side apply, again after each loss, and nothing besides.
package workload
