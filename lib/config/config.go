package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/edgetwin/sedna/models/wire"
)

// MaxFile bounds a configuration file in bytes.
const MaxFile = 1 << 20

// EnvPrefix starts the name of every variable that Load reads.
const EnvPrefix = "SEDNA_"

// Load reads the YAML file at path (none when path is empty), then environ (in
// the form of os.Environ), into the struct that into points to. What neither
// sets keeps its value, and so does a key with an empty value in the file.
//
// Keys are the yaml tags, as encoding by yaml uses them. The variable of a
// field is EnvPrefix and the keys on the way to it in UPPER_SNAKE: limits:
// maxBody is SEDNA_LIMITS_MAX_BODY. A list is written with commas; maps and
// lists of structs as YAML or JSON text. Durations are like 1h30m. SEDNA_
// variables that no field has are left to other programs.
//
// Errors are *wire.Error with code invalid_argument (too_large for the file's
// size, not_found for its absence) and name the key or the variable.
func Load(path string, into any, environ []string) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: into is %T, expected a pointer to a struct", into)
	}
	if path != "" {
		if err := loadFile(path, v.Elem()); err != nil {
			return fmt.Errorf("configuration file %s: %w", path, err)
		}
	}
	return loadEnv(v.Elem(), environ)
}

// Describe prints cfg as YAML, secrets redacted.
func Describe(cfg any) string {
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(cfg); err != nil {
		return "# cannot be shown: " + err.Error() + "\n"
	}
	return b.String()
}

func loadFile(path string, into reflect.Value) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return wire.E(wire.NotFound, "", "no such file", "")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return err
	}
	if len(b) > MaxFile {
		return wire.E(wire.TooLarge, "", fmt.Sprintf("at most %d bytes are taken", MaxFile), "")
	}
	return decodeYAML(b, into, "")
}

// decodeYAML reads one YAML document into v; key is where v lies.
func decodeYAML(b []byte, v reflect.Value, key string) error {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return wire.E(wire.InvalidArgument, key, "expected YAML: "+err.Error(), "")
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return wire.E(wire.InvalidArgument, key, "expected one YAML document, more follows", "")
	}
	return decode(doc.Content[0], v, key)
}
