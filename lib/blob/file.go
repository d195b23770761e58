package blob

import (
	"fmt"
	"path/filepath"
	"time"
)

// Path is the file of a stored blob, for those who can read only files; empty
// when sha is no digest. It must not be written to.
func (d *Dir) Path(sha string) string {
	if checkDigest(sha) != nil {
		return ""
	}
	return filepath.Join(d.root.Name(), filepath.FromSlash(nameOf(sha)))
}

// StoredAt is when the blob became whole.
func (d *Dir) StoredAt(sha string) (time.Time, error) {
	if err := checkDigest(sha); err != nil {
		return time.Time{}, err
	}
	st, err := d.root.Stat(nameOf(sha))
	if err != nil {
		return time.Time{}, fmt.Errorf("blob %s: %w", sha, err)
	}
	return st.ModTime(), nil
}
