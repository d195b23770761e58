package controlplane_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
)

// killedDir tells the child process of TestKilled where its data directory is.
const killedDir = "CONTROLPLANE_TEST_KILLED_DIR"

// TestKilled kills a process with an open control plane as soon as a create was acknowledged, and finds the object.
func TestKilled(t *testing.T) {
	t.Parallel()
	ca := controlplanetest.NewCA(t)
	if dir := os.Getenv(killedDir); dir != "" {
		s := controlplanetest.StartServer(t, ca, dir, widgetCRD(t))
		if _, err := widgetsIn(t, s.RESTConfig(), "a").Create(t.Context(), newWidget("acknowledged", map[string]any{}), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("created")
		select {}
	}

	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), killedDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "created") {
		t.Log(lines.Text())
	}
	child.Process.Kill()
	child.Wait()

	s := controlplanetest.StartServer(t, ca, dir, widgetCRD(t))
	if _, err := widgetsIn(t, s.RESTConfig(), "a").Get(t.Context(), "acknowledged", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
}
