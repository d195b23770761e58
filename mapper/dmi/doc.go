// Package dmi is the mapper's side of KubeEdge's Device Management Interface.
// It serves DeviceMapperService on a unix socket of its own, registers with
// edgecore for one protocol, again whenever edgecore was away, and hands the
// devices and models that edgecore tells of to a Handler, one call at a time.
package dmi
