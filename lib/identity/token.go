package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits of enrolment tokens.
const (
	TokenTTL       = 10 * time.Minute // how long a token is good unless said otherwise
	MaxTokenTTL    = 24 * time.Hour   // the longest time that may be asked for
	TokenRetention = 24 * time.Hour   // how long after its expiry a token is still told apart as used or expired
	MaxTokens      = 1024             // tokens that wait to be used, at most
)

const (
	tokenScheme = "sedna1"
	tokenIDLen  = 8  // bytes, hex in the text
	tokenKeyLen = 32 // bytes of secret and of pin, base64url in the text
)

// Where records are; redeeming renames a record from the one to the other.
const (
	liveDir = "live"
	usedDir = "used"
)

// Token is the parsed text of an enrolment token,
// sedna1.<id>.<secret>.<pin>.
type Token struct {
	ID     string // names the record
	secret []byte
	Pin    string // of the CA that the joiner is to trust, as CA.Pin
}

// ParseToken reads a token's text.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 4 || parts[0] != tokenScheme || len(parts[1]) != 2*tokenIDLen || strings.ToLower(parts[1]) != parts[1] {
		return Token{}, errMalformed()
	}
	if _, err := hex.DecodeString(parts[1]); err != nil {
		return Token{}, errMalformed()
	}
	b64 := base64.RawURLEncoding.Strict()
	secret, err1 := b64.DecodeString(parts[2])
	pin, err2 := b64.DecodeString(parts[3])
	if err1 != nil || err2 != nil || len(secret) != tokenKeyLen || len(pin) != tokenKeyLen || strings.ContainsAny(text, "\r\n") {
		return Token{}, errMalformed()
	}
	return Token{ID: parts[1], secret: secret, Pin: parts[3]}, nil
}

// Text is what the user carries to the node. It is a credential.
func (t Token) Text() string {
	return strings.Join([]string{tokenScheme, t.ID, base64.RawURLEncoding.EncodeToString(t.secret), t.Pin}, ".")
}

// tokenRecord is what is kept of a token.
type tokenRecord struct {
	Node       string    `json:"node"`
	SecretHash string    `json:"secretHash"` // hex sha256
	Expires    time.Time `json:"expires"`
}

// CreateToken makes a token with which node can enrol once until ttl from now
// (TokenTTL when 0), and keeps its record in dir. pin is CA.Pin.
func CreateToken(dir, pin, node string, ttl time.Duration, now time.Time) (text string, err error) {
	if ttl == 0 {
		ttl = TokenTTL
	}
	if !task.ValidName(node) {
		return "", wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name, got %.80q", node), "")
	}
	if ttl < 0 || ttl > MaxTokenTTL {
		return "", wire.E(wire.InvalidArgument, "ttl", fmt.Sprintf("expected at most %s, got %s", MaxTokenTTL, ttl), "")
	}
	if err := makeTokenDirs(dir); err != nil {
		return "", err
	}
	live, err := pruneTokens(dir, now)
	if err != nil {
		return "", err
	}
	if live >= MaxTokens {
		return "", wire.E(wire.ResourceExhausted, "token", fmt.Sprintf("%d tokens wait to be used already", live), "wait until some have expired")
	}
	id, secret := make([]byte, tokenIDLen), make([]byte, tokenKeyLen)
	rand.Read(id)
	rand.Read(secret)
	t := Token{ID: hex.EncodeToString(id), secret: secret, Pin: pin}
	b, err := json.Marshal(tokenRecord{Node: node, SecretHash: t.secretHash(), Expires: now.Add(ttl)})
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if err := createFile(tokenPath(dir, liveDir, t.ID), b); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return t.Text(), nil
}

// Redeem uses the token up for node. Of any number of calls with one token, in
// any number of processes, one succeeds. A kill after that and before the
// caller has acted on it costs the token: the node needs a new one.
//
// Codes: unauthenticated for a token that was never made here or whose secret
// is wrong, token_used, token_expired, and permission_denied for a token made
// for another node.
func Redeem(dir, token, node string, now time.Time) error {
	t, err := ParseToken(token)
	if err != nil {
		return err
	}
	rec, err := readToken(tokenPath(dir, liveDir, t.ID))
	used := errors.Is(err, os.ErrNotExist)
	if used {
		rec, err = readToken(tokenPath(dir, usedDir, t.ID))
	}
	if errors.Is(err, os.ErrNotExist) {
		return errUnknownToken()
	}
	if err != nil {
		return fmt.Errorf("token %s: %w", t.ID, err)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(t.secretHash()), []byte(rec.SecretHash)) != 1:
		return errUnknownToken()
	case used:
		return errUsedToken()
	case now.After(rec.Expires):
		return wire.E(wire.TokenExpired, "token", "expired at "+rec.Expires.UTC().Format(time.RFC3339), newTokenHint)
	case rec.Node != node:
		return wire.E(wire.PermissionDenied, "node", fmt.Sprintf("the token was not made for node %.80q", node), newTokenHint)
	}
	err = os.Rename(tokenPath(dir, liveDir, t.ID), tokenPath(dir, usedDir, t.ID))
	if errors.Is(err, os.ErrNotExist) {
		return errUsedToken()
	}
	if err == nil {
		err = syncDir(filepath.Join(dir, usedDir))
	}
	if err == nil {
		err = syncDir(filepath.Join(dir, liveDir))
	}
	if err != nil {
		return fmt.Errorf("token %s: %w", t.ID, err)
	}
	return nil
}

// DropTokens removes the unused tokens of node, for when it is revoked.
func DropTokens(dir, node string) error {
	return eachToken(dir, liveDir, func(path string, rec tokenRecord) error {
		if rec.Node != node {
			return nil
		}
		return remove(path)
	})
}

const newTokenHint = "make another with: sedna token create --node NAME"

func errMalformed() error {
	return wire.E(wire.Unauthenticated, "token", "expected an enrolment token, sedna1.…", newTokenHint)
}

func errUnknownToken() error {
	return wire.E(wire.Unauthenticated, "token", "not known here", newTokenHint)
}

func errUsedToken() error {
	return wire.E(wire.TokenUsed, "token", "was used before", newTokenHint)
}

func (t Token) secretHash() string {
	sum := sha256.Sum256(t.secret)
	return hex.EncodeToString(sum[:])
}

func tokenPath(dir, sub, id string) string { return filepath.Join(dir, sub, id+".json") }

func makeTokenDirs(dir string) error {
	for _, sub := range []string{liveDir, usedDir} {
		if err := makeDir(filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("tokens: %w", err)
		}
	}
	return nil
}

func readToken(path string) (rec tokenRecord, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return rec, err
	}
	return rec, json.Unmarshal(b, &rec)
}

// pruneTokens removes the records whose retention is over and counts the
// tokens that can still be used.
func pruneTokens(dir string, now time.Time) (live int, err error) {
	for _, sub := range []string{liveDir, usedDir} {
		err := eachToken(dir, sub, func(path string, rec tokenRecord) error {
			if now.After(rec.Expires.Add(TokenRetention)) {
				return remove(path)
			}
			if sub == liveDir && !now.After(rec.Expires) {
				live++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return live, nil
}

// eachToken calls f for the records in one directory; records that go away
// meanwhile are left out.
func eachToken(dir, sub string, f func(path string, rec tokenRecord) error) error {
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(dir, sub, e.Name())
		rec, err := readToken(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f(path, rec)
		}
		if err != nil {
			return fmt.Errorf("token record %s: %w", path, err)
		}
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
