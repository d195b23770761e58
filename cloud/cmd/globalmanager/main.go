// Command globalmanager runs in the cloud: it turns Sedna's objects into tasks
// on edge nodes, stores models, and answers what the edge finds hard.
package main

import (
	"os"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/lib/daemon"
)

func main() { os.Exit(daemon.Main(cloud.Program())) }
