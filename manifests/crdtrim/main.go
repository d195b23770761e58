// Command crdtrim finishes generated custom resource definitions: where a kind
// holds one of Kubernetes' own types, it puts a short schema made from that Go
// type. The fields that people write most are checked there; what lies deeper
// is kept as it is, for the controllers to decode. With the full schemas the
// definitions would be several megabytes.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crdtrim:", err)
		os.Exit(1)
	}
}

func run(dirs []string) error {
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.io_*.yaml"))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := finishFile(f); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
	}
	return nil
}

func finishFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return err
	}
	finish(doc)
	out, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o644)
}

// finish replaces each schema whose format names one of ours; its description stays.
func finish(v any) {
	switch v := v.(type) {
	case map[string]any:
		format, _ := v["format"].(string)
		if short, ok := schemas[format]; ok {
			delete(v, "format")
			maps.Copy(v, short())
			return
		}
		for _, child := range v {
			finish(child)
		}
	case []any:
		for _, child := range v {
			finish(child)
		}
	}
}
