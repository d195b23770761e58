package task

// Roll is the list of all tasks of a node that have a Device, made by the cloud
// after it has seen a beat with StateHash. It is part of the node's
// configuration, whose signature covers it. What that beat told of and the roll
// does not list is gone for good, whenever the node learns it: no uid comes back.
type Roll struct {
	StateHash string   `json:"stateHash"`
	Tasks     []string `json:"tasks"` // uids
}

// MaxConfig bounds a node's configuration in bytes, the roll included.
const MaxConfig = MaxDocument
