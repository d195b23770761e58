// Package edgelink is the edge half of the stand-in for KubeEdge, for nodes
// without edgecore. One mTLS WebSocket, dialled by the edge, brings the
// node's devices and models; they are kept in SQLite and handed to mappers
// over DMI, with the cloud away too. Reports come in over MQTT's $hw topics
// or DMI and go up the link. Limits, answers and rejections are KubeEdge's.
package edgelink
