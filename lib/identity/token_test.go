package identity_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/models/wire"
)

var (
	testPin   = strings.Repeat("A", 43)
	tokenTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func createToken(t *testing.T, dir, node string, now time.Time) string {
	t.Helper()
	token, err := identity.CreateToken(dir, testPin, node, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestRedeem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	token := createToken(t, dir, "edge1", tokenTime)
	id := strings.Split(token, ".")[1]
	wrongSecret := strings.Join([]string{"sedna1", id, strings.Repeat("B", 42) + "A", testPin}, ".")
	unknown := strings.Replace(token, id, "0123456789abcdef", 1)
	in := tokenTime.Add(identity.TokenTTL)
	for _, c := range []struct {
		name, token, node string
		now               time.Time
		code              wire.Code
	}{
		{"empty", "", "edge1", in, wire.Unauthenticated},
		{"malformed", "sedna1.x.y.z", "edge1", in, wire.Unauthenticated},
		{"unknown", unknown, "edge1", in, wire.Unauthenticated},
		{"wrong secret", wrongSecret, "edge1", in, wire.Unauthenticated},
		{"other node", token, "edge2", in, wire.PermissionDenied},
		{"expired", token, "edge1", in.Add(1), wire.TokenExpired},
		{"good, in its last moment", token, "edge1", in, ""},
		{"used", token, "edge1", in, wire.TokenUsed},
		{"used, other node", token, "edge2", in, wire.TokenUsed},
		{"used, wrong secret", wrongSecret, "edge1", in, wire.Unauthenticated},
		{"used, long ago", token, "edge1", in.Add(time.Hour), wire.TokenUsed},
	} {
		err := identity.Redeem(dir, c.token, c.node, c.now)
		if c.code == "" && err != nil || c.code != "" && !wire.IsCode(err, c.code) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.code)
		}
	}
	checkModes(t, dir)
	secret := strings.Split(token, ".")[2]
	b, err := os.ReadFile(filepath.Join(dir, "used", id+".json"))
	if err != nil || strings.Contains(string(b), secret) {
		t.Errorf("the record %s holds the secret, or %v", b, err)
	}
}

func TestRedeemOnceHoweverMany(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		token := createToken(t, dir, "edge1", tokenTime)
		var won atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 16 {
			wg.Go(func() {
				<-start
				switch err := identity.Redeem(dir, token, "edge1", tokenTime); {
				case err == nil:
					won.Add(1)
				case !wire.IsCode(err, wire.TokenUsed):
					t.Errorf("a loser got %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d calls succeeded", won.Load())
		}
	}
}

func TestCreateTokenRefusals(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		node  string
		ttl   time.Duration
		field string
	}{
		{"", 0, "node"}, {"../x", 0, "node"}, {"edge1", -1, "ttl"}, {"edge1", identity.MaxTokenTTL + 1, "ttl"},
	} {
		if _, err := identity.CreateToken(dir, testPin, c.node, c.ttl, tokenTime); !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != c.field {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	if _, err := identity.CreateToken(dir, testPin, "edge1", identity.MaxTokenTTL, tokenTime); err != nil {
		t.Error(err)
	}
}

func TestTokensAreBoundedAndPruned(t *testing.T) {
	dir := t.TempDir()
	last := createToken(t, dir, "edge1", tokenTime)
	record := filepath.Join(dir, "live", strings.Split(last, ".")[1]+".json")
	for i := range identity.MaxTokens - 1 {
		if err := os.Link(record, filepath.Join(dir, "live", fmt.Sprintf("%016x.json", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := identity.Redeem(dir, last, "edge1", tokenTime); err != nil {
		t.Fatal(err)
	}
	createToken(t, dir, "edge1", tokenTime)
	if _, err := identity.CreateToken(dir, testPin, "edge1", 0, tokenTime); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Fatalf("token %d: %v", identity.MaxTokens+1, err)
	}
	expired := tokenTime.Add(identity.TokenTTL + 1)
	createToken(t, dir, "edge1", expired)
	if err := identity.Redeem(dir, last, "edge1", expired); !wire.IsCode(err, wire.TokenUsed) {
		t.Errorf("within its retention: %v", err)
	}
	late := expired.Add(identity.TokenRetention)
	createToken(t, dir, "edge2", late)
	if err := identity.Redeem(dir, last, "edge1", late); !wire.IsCode(err, wire.Unauthenticated) {
		t.Errorf("after its retention: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(files) != 2 {
		t.Errorf("%d records left, want 2", len(files))
	}
}

func TestDropTokens(t *testing.T) {
	dir := t.TempDir()
	if err := identity.DropTokens(dir, "edge1"); err != nil {
		t.Error(err)
	}
	gone, kept := createToken(t, dir, "edge1", tokenTime), createToken(t, dir, "edge2", tokenTime)
	if err := identity.DropTokens(dir, "edge1"); err != nil {
		t.Fatal(err)
	}
	if err := identity.Redeem(dir, gone, "edge1", tokenTime); !wire.IsCode(err, wire.Unauthenticated) {
		t.Error(err)
	}
	if err := identity.Redeem(dir, kept, "edge2", tokenTime); err != nil {
		t.Error(err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("sedna1.0123456789abcdef." + strings.Repeat("A", 43) + "." + testPin)
	f.Add("sedna1...")
	f.Add("sedna1.../../../../etc/x." + testPin + "." + testPin)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := identity.ParseToken(text)
		if err != nil {
			if !wire.IsCode(err, wire.Unauthenticated) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if token.Text() != text {
			t.Errorf("%q reads back as %q", text, token.Text())
		}
		if filepath.Base(token.ID) != token.ID || len(token.ID) != 16 {
			t.Errorf("id %q", token.ID)
		}
	})
}
