// Command mapper runs on each edge node: it carries tasks between KubeEdge's
// device twins and the MQTT bus, and stands in for edgecore where there is
// none.
package main

import (
	"os"

	"github.com/edgetwin/sedna/lib/daemon"
	"github.com/edgetwin/sedna/mapper"
)

func main() { os.Exit(daemon.Main(mapper.Program())) }
