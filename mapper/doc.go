// Package mapper puts the parts of the mapper process together: the bridge of
// tasks between DMI and the bus and, on nodes without KubeEdge, edgelink's
// edge half and an embedded MQTT broker.
package mapper
