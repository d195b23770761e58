package main

import (
	"maps"
	"reflect"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// schema is a JSON schema as in a custom resource definition.
type schema = map[string]any

// schemas are what a marker's format stands for.
var schemas = map[string]func() schema{
	"kubernetes-pod-template": podTemplate,
	"kubernetes-metric":       func() schema { return of(reflect.TypeFor[autoscalingv2.MetricSpec]()) },
}

// open are the types all of whose fields are listed, so that a typing error is
// refused. Of others only what must be there is, and the rest is kept.
var open = map[reflect.Type]bool{
	reflect.TypeFor[corev1.PodTemplateSpec]():      true,
	reflect.TypeFor[corev1.PodSpec]():              true,
	reflect.TypeFor[corev1.Container]():            true,
	reflect.TypeFor[corev1.EnvVar]():               true,
	reflect.TypeFor[corev1.VolumeMount]():          true,
	reflect.TypeFor[corev1.ResourceRequirements](): true,
	reflect.TypeFor[corev1.LocalObjectReference](): true,
	reflect.TypeFor[corev1.Toleration]():           true,
}

func podTemplate() schema {
	s := of(reflect.TypeFor[corev1.PodTemplateSpec]())
	s["required"] = []string{"spec"}
	spec := s["properties"].(schema)["spec"].(schema)["properties"].(schema)
	spec["initContainers"].(schema)["items"] = unlisted(reflect.TypeFor[corev1.Container]())
	containers := spec["containers"].(schema)
	containers["minItems"] = 1
	// A container without an image can run as a process by its command.
	containers["items"].(schema)["anyOf"] = []any{
		schema{"required": []string{"image"}}, schema{"required": []string{"command"}}, schema{"required": []string{"args"}},
	}
	return s
}

// of gives the schema of a Kubernetes type.
func of(t reflect.Type) schema {
	switch t {
	case reflect.TypeFor[metav1.ObjectMeta]():
		text := schema{"type": "object", "additionalProperties": schema{"type": "string"}}
		return schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true,
			"properties": schema{"annotations": text, "labels": text, "name": schema{"type": "string"}}}
	case reflect.TypeFor[resource.Quantity](), reflect.TypeFor[intstr.IntOrString]():
		return schema{"x-kubernetes-int-or-string": true, "anyOf": []any{schema{"type": "integer"}, schema{"type": "string"}}}
	case reflect.TypeFor[corev1.ContainerPort]():
		s := listed(t)
		maps.Copy(s["properties"].(schema)["containerPort"].(schema), schema{"minimum": 1, "maximum": 65535})
		return s
	case reflect.TypeFor[metav1.Time]():
		return schema{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return of(t.Elem())
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int32, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Slice:
		return schema{"type": "array", "items": of(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": of(t.Elem())}
	}
	if open[t] {
		return listed(t)
	}
	return unlisted(t)
}

// listed takes no other field than those of t.
func listed(t reflect.Type) schema {
	return withFields(t, schema{"type": "object"}, true)
}

// unlisted keeps whatever is in it.
func unlisted(t reflect.Type) schema {
	return withFields(t, schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true}, false)
}

func withFields(t reflect.Type, s schema, all bool) schema {
	properties, required := schema{}, []string{}
	fields(t, all, properties, &required)
	if len(properties) > 0 {
		s["properties"] = properties
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// fields collects the fields of a struct: all of them, or the plain ones that
// must be there. As everywhere in Kubernetes' API, those are the ones whose tag
// does not say omitempty.
func fields(t reflect.Type, all bool, properties schema, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			fields(f.Type, all, properties, required)
			continue
		}
		must := !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero")
		plain := f.Type.Kind() == reflect.String || f.Type.Kind() == reflect.Int32
		if all || must && plain {
			properties[name] = of(f.Type)
		}
		if must && (all || plain) {
			*required = append(*required, name)
		}
	}
}
