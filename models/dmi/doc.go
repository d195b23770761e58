// Package dmi is KubeEdge's Device Management Interface: the gRPC messages and
// services that edgecore and mappers speak over unix sockets, generated from
// dmi.proto with `make generate`.
package dmi
