// Package config reads a program's settings: a YAML file first, then the
// SEDNA_… environment variables over it, into a struct that comes filled with
// the defaults. A key that the struct does not have is an error, so a typing
// mistake never passes for a default. Describe prints what came out, secrets
// redacted.
package config
