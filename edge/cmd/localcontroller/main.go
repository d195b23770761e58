// Command localcontroller keeps and runs the tasks of one edge node.
package main

import (
	"os"

	"github.com/edgetwin/sedna/edge"
	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/lib/daemon"
)

func main() {
	if handled, code := model.LoadTestMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	os.Exit(daemon.Main(edge.Program()))
}
