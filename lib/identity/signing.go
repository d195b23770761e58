package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
)

// validKeys is how many signing keys are valid at a time while one rotates.
const validKeys = 2

// rotationRaces is how often Reload reads again when rotations get in its way.
const rotationRaces = 10

// keyFileRE matches <number>.pem; the highest number is active. The name is the
// number alone, so that of several processes that rotate one makes each number.
var keyFileRE = regexp.MustCompile(`^\d{6}\.pem$`)

// SigningKeys are the keys with which the GlobalManager signs task documents.
// Safe for concurrent use, and for several processes on one directory.
type SigningKeys struct {
	dir string

	mu   sync.RWMutex
	keys []ed25519.PrivateKey // newest first, at least one, at most validKeys
}

// OpenSigningKeys loads the keys from dir; when there is none it creates one.
func OpenSigningKeys(dir string) (*SigningKeys, error) {
	s := &SigningKeys{dir: dir}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	if len(s.keys) > 0 {
		return s, nil
	}
	err := s.create(1)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return s, s.Reload()
}

// Active is the key to sign with.
func (s *SigningKeys) Active() ed25519.PrivateKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys[0]
}

// Public are the keys that nodes are to pin, the active one first.
func (s *SigningKeys) Public() []ed25519.PublicKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]ed25519.PublicKey, len(s.keys))
	for i, k := range s.keys {
		out[i] = k.Public().(ed25519.PublicKey)
	}
	return out
}

// Rotate makes a new key active; the one before stays valid, older ones are
// removed. A node that meets a document signed by a key it has not pinned gets
// the keys by Renew.
func (s *SigningKeys) Rotate() error {
	for {
		files, err := s.list()
		if err != nil {
			return err
		}
		next := 1
		if len(files) > 0 {
			if next, err = strconv.Atoi(files[0][:6]); err != nil {
				return fmt.Errorf("signing keys: %w", err)
			}
			next++
		}
		if err = s.create(next); errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		for i, f := range files {
			if i >= validKeys-1 {
				if err := os.Remove(filepath.Join(s.dir, f)); err != nil && !errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("signing keys: %w", err)
				}
			}
		}
		return s.Reload()
	}
}

// Reload reads the directory again, for keys that another process rotated.
func (s *SigningKeys) Reload() error {
	keys, err := s.read()
	for range rotationRaces {
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
		keys, err = s.read()
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(keys) == 0 && len(s.keys) > 0 {
		return fmt.Errorf("signing keys: none in %s, the last ones stay in use", s.dir)
	}
	s.keys = keys
	return nil
}

// read loads the newest keys. os.ErrNotExist means that a rotation removed one
// after it was listed.
func (s *SigningKeys) read() ([]ed25519.PrivateKey, error) {
	files, err := s.list()
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PrivateKey
	for _, f := range files[:min(len(files), validKeys)] {
		b, err := os.ReadFile(filepath.Join(s.dir, f))
		if err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
		key, err := parseEd25519(b)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", f, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// list gives the key files, newest first.
func (s *SigningKeys) list() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	var files []string
	for _, e := range entries {
		if keyFileRE.MatchString(e.Name()) {
			files = append(files, e.Name())
		}
	}
	slices.Sort(files)
	slices.Reverse(files)
	return files, nil
}

// create makes key number n; os.ErrExist when another process just did.
func (s *SigningKeys) create(n int) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	b, err := encodeKey(key)
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	return createFile(filepath.Join(s.dir, fmt.Sprintf("%06d.pem", n)), b)
}
