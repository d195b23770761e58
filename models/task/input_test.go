package task

import (
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

func goodInputs() []Input {
	return []Input{{
		Tensor: "x", Window: 8, Stride: 4, OnMissing: MissingLast, MaxAgeMilliseconds: 1500,
		Sources: []InputSource{{Device: "plc-1", Property: "temperature"}, {Topic: "lab/air", JSONPath: "$.values[0]"}},
	}}
}

func TestInputDefaults(t *testing.T) {
	inputs := []Input{{Tensor: "x", Sources: []InputSource{{Topic: "t"}}}}
	if err := validateInputs(inputs); err != nil {
		t.Fatal(err)
	}
	if in := inputs[0]; in.Window != 1 || in.Stride != 1 || in.OnMissing != MissingSkip || in.MaxAge() != 0 {
		t.Errorf("%+v", in)
	}
	inputs = goodInputs()
	if err := validateInputs(inputs); err != nil || inputs[0].MaxAge() != 1500*time.Millisecond {
		t.Errorf("%+v: %v", inputs, err)
	}
	if err := validateInputs(nil); err != nil {
		t.Error(err)
	}
}

func TestInputsRefused(t *testing.T) {
	many := make([]InputSource, MaxInputSources+1)
	for i := range many {
		many[i] = InputSource{Topic: "t"}
	}
	for _, c := range []struct {
		name  string
		edit  func(*Input)
		field string
	}{
		{"no tensor", func(i *Input) { i.Tensor = "" }, ".tensor"},
		{"window below", func(i *Input) { i.Window = -1 }, ".window"},
		{"window above", func(i *Input) { i.Window = MaxWindow + 1 }, ".window"},
		{"stride below", func(i *Input) { i.Stride = -1 }, ".stride"},
		{"stride above", func(i *Input) { i.Stride = 9 }, ".stride"},
		{"age below", func(i *Input) { i.MaxAgeMilliseconds = -1 }, ".maxAgeMilliseconds"},
		{"age above", func(i *Input) { i.MaxAgeMilliseconds = 24*3600*1000 + 1 }, ".maxAgeMilliseconds"},
		{"on missing", func(i *Input) { i.OnMissing = "guess" }, ".onMissing"},
		{"no sources", func(i *Input) { i.Sources = nil }, ".sources"},
		{"many sources", func(i *Input) { i.Sources = many }, ".sources"},
		{"empty source", func(i *Input) { i.Sources[1] = InputSource{} }, ".sources[1].device"},
		{"device and topic", func(i *Input) { i.Sources[0].Topic = "t" }, ".sources[0]"},
		{"device's name", func(i *Input) { i.Sources[0].Device = "PLC" }, ".sources[0].device"},
		{"no property", func(i *Input) { i.Sources[0].Property = "" }, ".sources[0].property"},
		{"property's name", func(i *Input) { i.Sources[0].Property = "a/b" }, ".sources[0].property"},
		{"wildcard", func(i *Input) { i.Sources[1].Topic = "lab/+" }, ".sources[1].topic"},
		{"broker's own topic", func(i *Input) { i.Sources[1].Topic = "$SYS/x" }, ".sources[1].topic"},
		{"long topic", func(i *Input) { i.Sources[1].Topic = strings.Repeat("t", 1025) }, ".sources[1].topic"},
		{"long path", func(i *Input) { i.Sources[1].JSONPath = strings.Repeat("p", 257) }, ".sources[1].jsonPath"},
	} {
		inputs := goodInputs()
		c.edit(&inputs[0])
		err := validateInputs(inputs)
		if e := wire.AsError(err); err == nil || e.Code != wire.InvalidArgument || e.Field != "spec.inputs[0]"+c.field {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	twice := append(goodInputs(), goodInputs()...)
	if err := validateInputs(twice); err == nil || wire.AsError(err).Field != "spec.inputs[1].tensor" {
		t.Errorf("twice: %v", err)
	}
	if err := validateInputs(make([]Input, MaxInputs+1)); err == nil || wire.AsError(err).Field != "spec.inputs" {
		t.Errorf("many: %v", err)
	}
}

func TestInputsAtTheLimits(t *testing.T) {
	inputs := goodInputs()
	inputs[0].Window, inputs[0].Stride, inputs[0].MaxAgeMilliseconds = MaxWindow, MaxWindow, 24*3600*1000
	inputs[0].Sources[1] = InputSource{Topic: strings.Repeat("t", 1024), JSONPath: strings.Repeat("p", 256)}
	for len(inputs[0].Sources) < MaxInputSources {
		inputs[0].Sources = append(inputs[0].Sources, InputSource{Topic: "t"})
	}
	if err := validateInputs(inputs); err != nil {
		t.Error(err)
	}
}

func TestResultProperty(t *testing.T) {
	for _, c := range []struct {
		r     ResultProperty
		field string // empty: good
	}{
		{ResultProperty{Device: "panel", Property: "state"}, ""},
		{ResultProperty{Device: "panel", Property: "state", Value: ResultLabel}, ""},
		{ResultProperty{Device: "panel", Property: "state", Value: ResultOutput}, ""},
		{ResultProperty{Device: "panel", Property: "state", Value: "best"}, "spec.resultProperty.value"},
		{ResultProperty{Device: "-", Property: "state"}, "spec.resultProperty.device"},
		{ResultProperty{Device: "panel"}, "spec.resultProperty.property"},
	} {
		err := c.r.validate()
		if (err == nil) != (c.field == "") || err != nil && wire.AsError(err).Field != c.field {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
}
