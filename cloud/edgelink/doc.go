// Package edgelink is the cloud half of the stand-in for KubeEdge, for nodes
// without edgecore. It watches Device and DeviceModel, sends to each linked
// node the devices that are bound to it, and writes what nodes report into
// DeviceStatus. Of a device that changes faster than a link or the API takes
// it, the newest state travels.
package edgelink
