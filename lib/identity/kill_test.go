package identity_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/models/wire"
)

// writerDir tells a child process to write into a directory until it is killed.
const writerDir = "IDENTITY_TEST_WRITER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		if err := writeForever(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForever does all that writes, and prints each token that it redeemed.
func writeForever(dir string, out io.Writer) error {
	for {
		ca, err := identity.OpenCA(filepath.Join(dir, "ca"), nil)
		if err != nil {
			return err
		}
		keys, err := identity.OpenSigningKeys(filepath.Join(dir, "keys"))
		if err != nil {
			return err
		}
		if err := keys.Rotate(); err != nil {
			return err
		}
		nodeDir := filepath.Join(dir, "node")
		csr, err := identity.NodeCSR(nodeDir, "edge1")
		if err != nil {
			return err
		}
		cert, err := ca.SignNode(csr, "edge1")
		if err != nil {
			return err
		}
		g := identity.Grant{Certificate: string(cert), CA: string(ca.CertPEM()), SigningKeys: [][]byte{keys.Public()[0]}}
		if _, err := identity.SaveNode(nodeDir, "edge1", "https://localhost:9000", g); err != nil {
			return err
		}
		token, err := identity.CreateToken(filepath.Join(dir, "tokens"), ca.Pin(), "edge1", 0, time.Now())
		if err != nil {
			return err
		}
		if err := identity.Redeem(filepath.Join(dir, "tokens"), token, "edge1", time.Now()); err != nil {
			return err
		}
		fmt.Fprintln(out, token)
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	var pin string
	for range 25 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(5*time.Millisecond+time.Duration(rand.IntN(60))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		var redeemed []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			redeemed = append(redeemed, lines.Text())
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() > 0 {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		timer.Stop()

		ca, err := identity.OpenCA(filepath.Join(dir, "ca"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if pin != "" && ca.Pin() != pin {
			t.Fatal("the CA changed")
		}
		pin = ca.Pin()
		if _, err := identity.OpenSigningKeys(filepath.Join(dir, "keys")); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.LoadNode(filepath.Join(dir, "node")); err != nil && !wire.IsCode(err, wire.NotFound) {
			t.Fatal(err)
		}
		for _, token := range redeemed {
			if len(token) > 0 && !wire.IsCode(identity.Redeem(filepath.Join(dir, "tokens"), token, "edge1", time.Now()), wire.TokenUsed) {
				t.Fatalf("%s can be used again", token)
			}
		}
	}
	checkModes(t, dir+"/ca")
	checkModes(t, dir+"/node")
}
