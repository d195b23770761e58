// Package twin keeps tasks as KubeEdge Devices.
//
// A job's controller says which tasks it wants (Tasks.Sync); each becomes one
// Device whose desired property "task" is a signed document. What the node
// reports comes back in the DeviceStatus of the same name; only reports that
// carry the node's signature count. The Controller acknowledges reports in the
// Device's nonce, repairs what was lost on the way down, and lets a Device go
// when its node has confirmed that the task is stopped.
package twin
