package tasks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// NodeConfig is the configuration that the cloud gives a node: the desired
// property config of its Device.
type NodeConfig struct {
	Generation int64      `json:"generation"`         // grows with every change, from 1
	Node       string     `json:"node,omitempty"`     // when given, this node's name
	LogLevel   string     `json:"logLevel,omitempty"` // DEBUG, INFO, WARN or ERROR; empty leaves it
	Roll       *task.Roll `json:"roll,omitempty"`     // the node's tasks that are alive; nil says nothing
}

// MaxNodeConfig bounds a configuration document in bytes.
const MaxNodeConfig = task.MaxConfig

// ParseNodeConfig reads a configuration document for node. A key that this
// build does not know is refused, so that nothing is believed to be in force
// that is not.
func ParseNodeConfig(b []byte, node string) (*NodeConfig, error) {
	if len(b) > MaxNodeConfig {
		return nil, wire.E(wire.TooLarge, task.PropConfig, fmt.Sprintf("document of %d bytes, at most %d are taken", len(b), MaxNodeConfig), "")
	}
	var c NodeConfig
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, wire.E(wire.InvalidArgument, task.PropConfig, err.Error(), "")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, wire.E(wire.InvalidArgument, task.PropConfig, "data after the document", "")
	}
	switch {
	case c.Generation < 1:
		return nil, wire.E(wire.InvalidArgument, "generation", "expected 1 or more", "")
	case c.Node != "" && c.Node != node:
		return nil, wire.E(wire.WrongNode, "node", fmt.Sprintf("the configuration is for node %.80q, this is %q", c.Node, node), "")
	}
	if _, err := c.level(); err != nil {
		return nil, wire.E(wire.InvalidArgument, "logLevel", fmt.Sprintf("expected DEBUG, INFO, WARN or ERROR, got %.40q", c.LogLevel), "")
	}
	return &c, nil
}

func (c *NodeConfig) level() (l slog.Level, err error) {
	if c.LogLevel != "" {
		err = l.UnmarshalText([]byte(c.LogLevel))
	}
	return l, err
}

// apply brings a checked configuration into force.
func (c *NodeConfig) apply(level *slog.LevelVar) {
	if l, err := c.level(); err == nil && c.LogLevel != "" && level != nil {
		level.Set(l)
	}
}
