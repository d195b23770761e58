package config

import (
	"encoding"
	"fmt"
	"log/slog"
)

// Redacted is what a Secret prints as.
const Redacted = "[redacted]"

// Secret is a setting whose value is not to be printed: fmt with any verb,
// JSON, YAML and slog show Redacted in its place, or nothing when it is empty.
// Convert it to string where the value is used.
type Secret string

var (
	_ fmt.Formatter          = Secret("")
	_ encoding.TextMarshaler = Secret("")
	_ slog.LogValuer         = Secret("")
)

// String is Redacted, or empty when s is.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Redacted
}

// Format writes String whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText is what JSON and YAML encode.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is what slog prints.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
