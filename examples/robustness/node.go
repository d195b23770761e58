package robustness

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/edgetwin/sedna/lib/identity"
)

// Kinds of parts, which are processes.
const (
	globalManager   = "globalmanager"
	messageBus      = "bus"
	mapper          = "mapper"
	localController = "localcontroller"
)

// part is one process: of a node, or the cloud's.
type part struct {
	kind string
	node *node // nil: the cloud's
}

func (p part) String() string {
	if p.node == nil {
		return p.kind
	}
	return p.node.name + "-" + p.kind
}

// node is one edge node: a bus, a mapper with edgelink and a LocalController.
type node struct {
	name, dir              string
	embedded               bool // its bus is its mapper's
	addr, control, edgeURL string
	identity               *identity.Node
}

// parts lists its processes in the order in which they start.
func (n *node) parts() []part {
	if n.embedded {
		return []part{{mapper, n}, {localController, n}}
	}
	return []part{{messageBus, n}, {mapper, n}, {localController, n}}
}

func (n *node) publicKey() ed25519.PublicKey { return n.identity.Key().Public().(ed25519.PublicKey) }

func (n *node) identityDir() string { return filepath.Join(n.dir, "identity") }

// database is the SQLite file of a part.
func (n *node) database(kind string) string {
	if kind == mapper {
		return filepath.Join(n.dir, "edgelink.db")
	}
	return filepath.Join(n.dir, "local", "sedna.db")
}

// settings gives a part's configuration: as users have it, with shorter times.
func (n *node) settings(kind string, losses []string, seed int64) map[string]any {
	client := map[string]any{"url": "tcp://" + n.addr}
	switch kind {
	case messageBus:
		// A mapper that nobody registers, for the sake of its broker.
		return map[string]any{
			"node": "bus", "identity": filepath.Join(n.dir, "none"), "http": "", "broker": map[string]any{"enabled": true, "listen": n.addr},
			"dmiSocket": filepath.Join(n.dir, "none.sock"), "socket": filepath.Join(n.dir, "bus.sock"),
		}
	case mapper:
		return map[string]any{
			"node": n.name, "identity": n.identityDir(), "http": "", "bus": client, "broker": map[string]any{"enabled": n.embedded, "listen": n.addr},
			"dmiSocket": filepath.Join(n.dir, "dmi.sock"), "socket": filepath.Join(n.dir, "mapper.sock"),
			"edgelink": map[string]any{"enabled": true, "database": n.database(mapper), "lose": losses, "seed": seed, "control": n.control},
		}
	}
	return map[string]any{
		"node": n.name, "dataDir": filepath.Join(n.dir, "local"), "identityDir": n.identityDir(), "http": n.edgeURL, "bus": client, "beatSeconds": 2,
		"limits": map[string]any{"tasks": map[string]any{"retryBase": "300ms", "retryMax": "2s", "resendBase": "1s", "resendMax": "4s"}},
	}
}

// setLink cuts or heals the node's link to the cloud.
func (n *node) setLink(ctx context.Context, up bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.control+"/link", strings.NewReader(fmt.Sprintf(`{"up":%v}`, up)))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("link control of %s: %s", n.name, res.Status)
	}
	return nil
}

// Ways in which a disk loses a database.
const (
	missing     = "missing"     // the files are deleted
	cut         = "cut"         // it ends at a random byte
	overwritten = "overwritten" // a block in its middle holds something else
)

// block is how much is overwritten, in bytes: not less than a page of SQLite.
const block = 4096

// damage does that to a database whose process is down. Its write-ahead log,
// which may hold all that matters, is hit as often as the file itself.
func damage(file, how string, random *rand.Rand) error {
	log := file + "-wal"
	if how == missing {
		for _, name := range []string{file, log, file + "-shm"} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	hit, other := random.IntN(2) == 0, random.Uint64()
	if _, err := os.Stat(log); err == nil && hit {
		file = log
	}
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at := int64(other % uint64(st.Size()+1))
	if how == cut {
		return os.Truncate(file, at)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	garbage := make([]byte, block)
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	_, err = f.WriteAt(garbage, max(0, min(at, st.Size()-block)))
	return errors.Join(err, f.Close())
}

// mosquitto gives the command line of an mosquitto that keeps its retained
// messages on disk, and of its database file.
func (n *node) mosquitto(program string) (argv []string, database string, err error) {
	u, err := user.Current()
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(n.dir, "mosquitto")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	host, port, _ := strings.Cut(n.addr, ":")
	conf := fmt.Sprintf("user %s\nlistener %s %s\nallow_anonymous true\npersistence true\npersistence_location %s/\nautosave_on_changes true\nautosave_interval 1\n",
		u.Username, port, host, dir)
	file := filepath.Join(n.dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, "", err
	}
	return []string{program, "-c", file}, filepath.Join(dir, "mosquitto.db"), nil
}
