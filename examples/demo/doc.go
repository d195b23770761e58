// Package demo drives Sedna's main job end to end on real data, with every
// real part as a process of its own: the cloud (Kubernetes API, GlobalManager,
// cloud inference), edgelink's edge half with the mapper and the MQTT bus, the
// LocalController, and a sensor. It uses what users use: manifests, MQTT and
// the local HTTP API. Taking a part away is SIGKILL; bringing it back is
// starting it again on the same data directory.
package demo
