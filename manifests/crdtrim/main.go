// Command crdtrim takes the descriptions out of the pod templates and
// autoscalers in generated custom resource definitions: Kubernetes documents
// those fields, and with the texts the definitions would be four times as long.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// kubernetesOwn are the properties whose content Kubernetes documents.
var kubernetesOwn = map[string]bool{"template": true, "hpa": true}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crdtrim:", err)
		os.Exit(1)
	}
}

func run(dirs []string) error {
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := trimFile(f); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
	}
	return nil
}

func trimFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return err
	}
	trim(doc, false)
	out, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o644)
}

// trim removes descriptions below the properties of kubernetesOwn.
func trim(v any, below bool) {
	switch v := v.(type) {
	case map[string]any:
		if _, text := v["description"].(string); text && below {
			delete(v, "description")
		}
		props, _ := v["properties"].(map[string]any)
		for name, p := range props {
			if kubernetesOwn[name] && !below {
				trimBelow(p)
			} else {
				trim(p, below)
			}
		}
		for key, child := range v {
			if key != "properties" {
				trim(child, below)
			}
		}
	case []any:
		for _, child := range v {
			trim(child, below)
		}
	}
}

// trimBelow trims all that is in a property but keeps its own description.
func trimBelow(property any) {
	m, ok := property.(map[string]any)
	if !ok {
		return
	}
	text, described := m["description"]
	trim(m, true)
	if described {
		m["description"] = text
	}
}
