package history

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func run(event string) Record { return Record{Kind: KindRun, Event: event} }
func asked(gen int64, state, model string, acked int64) Record {
	return Record{Kind: KindAPI, Event: Desired, UID: "u", DesiredGeneration: gen, State: state, Model: model, Acked: acked}
}
func said(gen int64, phase, model string, seq int64) Record {
	return Record{Kind: KindBus, Event: Reported, Node: "n", UID: "u", Generation: gen, Phase: phase, Model: model, Seq: seq}
}
func event(what string, gen int64) Record {
	return Record{Kind: KindBus, Event: what, Node: "n", UID: "u", Generation: gen}
}
func wiped(node string) Record     { return Record{Kind: KindProcess, Event: Wiped, Node: node} }
func bus(what, node string) Record { return Record{Kind: KindBus, Event: what, Node: node} }
func forced() Record               { return Record{Kind: KindAPI, Event: Forced, UID: "u"} }
func gone() Record                 { return Record{Kind: KindAPI, Event: Gone, UID: "u"} }
func known(gen int64, phase string, seq int64) Record {
	return Record{Kind: KindEnd, Event: Device, UID: "u", DesiredGeneration: 2, State: "Active", Model: "B", Generation: gen, Phase: phase, Seq: seq, Acked: seq}
}
func retained(gen int64, state string) Record {
	return Record{Kind: KindEnd, Event: Retained, UID: "u", DesiredGeneration: gen, State: state}
}
func has(gen int64, phase string, seq, acked int64) Record {
	return Record{Kind: KindEnd, Event: Task, UID: "u", Generation: gen, Phase: phase, Seq: seq, Acked: acked}
}

// living is a good history of a task that changes once.
func living() []Record {
	return []Record{
		run(Begin), {Kind: KindProcess, Event: Started, Part: "localcontroller"},
		asked(1, "Active", "A", 0), event(Accepted, 1), said(1, "Pending", "", 1), said(1, "Preparing", "", 2),
		event(Served, 1), said(1, "Running", "A", 3), asked(1, "Active", "A", 3),
		{Kind: KindLink, Event: Down}, asked(2, "Active", "B", 3), {Kind: KindLink, Event: Up}, {Kind: KindProcess, Event: Killed},
		event(Accepted, 2), said(2, "Pending", "A", 4), said(2, "Pending", "A", 4), event(Served, 2), said(2, "Running", "B", 6),
		run(Healed), asked(2, "Active", "B", 6),
		known(2, "Running", 6), retained(2, "Active"), has(2, "Running", 6, 6), run(End),
	}
}

// dying is a good history of a task that is deleted.
func dying() []Record {
	return []Record{
		run(Begin), asked(1, "Active", "A", 0), event(Accepted, 1), event(Served, 1), said(1, "Running", "A", 3), asked(1, "Active", "A", 3),
		asked(2, "Deleted", "", 3), event(Deleted, 2), event(Stopped, 2), said(2, "Stopped", "", 4),
		{Kind: KindAPI, Event: Gone, UID: "u"}, run(Healed), run(End),
	}
}

// of is a record of another uid.
func of(uid string, r Record) Record {
	r.UID = uid
	return r
}

// successor is a good history of a Device that is forced to go and made again.
func successor() []Record {
	return []Record{
		run(Begin), asked(1, "Active", "A", 0), event(Accepted, 1), event(Served, 1), said(1, "Running", "A", 3), forced(), gone(),
		of("v", asked(1, "Active", "A", 0)), of("v", event(Accepted, 1)), of("v", event(Stopped, 1)), of("v", said(1, "Stopped", "", 2)), run(Healed), run(End),
	}
}

func check(t *testing.T, records []Record) (Verdict, error) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, r := range records {
		w.Write(r)
	}
	if err := w.Err(); err != nil {
		t.Fatal(err)
	}
	return Check(&b)
}

func TestGoodHistories(t *testing.T) {
	for name, records := range map[string][]Record{
		"living": living(), "dying": dying(), "nothing": {run(Begin), run(Healed), run(End)},
		"deployed again after a loss": edit(living(), func(r []Record) []Record {
			return insert(r, event(Served, 1), event(Lost, 1), event(Served, 1))
		}),
		"a report passes while the bus is not seen": edit(living(), func(r []Record) []Record {
			return replace(insert(r, said(1, "Preparing", "", 2), bus(Blind, "n")), said(1, "Running", "A", 3), bus(Seeing, "n"))
		}),
		"the end passes while the bus is not seen": edit(dying(), func(r []Record) []Record {
			return replace(replace(insert(r, event(Deleted, 2), bus(Blind, "n")), said(2, "Stopped", "", 4)), event(Stopped, 2))
		}),
		"a node that lost its memory begins again": edit(living(), func(r []Record) []Record {
			return insert(r, said(1, "Running", "A", 3), wiped("n"), event(Accepted, 1), said(1, "Pending", "", 2), event(Served, 1))
		}),
		"it takes a deleted task again, and stops it": edit(dying(), func(r []Record) []Record {
			return insert(r, gone(), wiped("n"), event(Accepted, 1), said(1, "Running", "A", 5), event(Stopped, 1), said(1, "Stopped", "", 6))
		}),
		"a successor takes the Device's name": successor(),
		"a task is forgotten with the rest, and forced": edit(dying(), func(r []Record) []Record {
			return replace(replace(replace(r, asked(2, "Deleted", "", 3), forced(), wiped("n")), event(Deleted, 2)), event(Stopped, 2))
		}),
	} {
		if v, err := check(t, records); err != nil || !v.OK() {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	v, _ := check(t, living())
	if v.Tasks != 1 || v.Kills != 1 || v.Cuts != 1 || v.Reports != 6 || v.Records != len(living()) {
		t.Errorf("%+v", v)
	}
}

func edit(records []Record, f func([]Record) []Record) []Record { return f(slices.Clone(records)) }

// insert puts records behind the first that is like at, or before the end.
func insert(records []Record, at Record, more ...Record) []Record {
	i := slices.IndexFunc(records, func(r Record) bool { return fmt.Sprint(r) == fmt.Sprint(at) })
	if i < 0 {
		panic("no such record")
	}
	if at.Event != End {
		i++
	}
	return slices.Insert(records, i, more...)
}

// replace puts another record in the place of one.
func replace(records []Record, old Record, by ...Record) []Record {
	i := slices.IndexFunc(records, func(r Record) bool { return fmt.Sprint(r) == fmt.Sprint(old) })
	if i < 0 {
		panic("no such record")
	}
	return slices.Replace(records, i, i+1, by...)
}

func TestEachRuleCanFail(t *testing.T) {
	for name, c := range map[string]struct {
		rule    string
		records []Record
	}{
		"an older generation is accepted": {RuleGrowth, insert(living(), event(Accepted, 2), event(Accepted, 1))},
		"a generation is accepted twice":  {RuleGrowth, insert(living(), event(Accepted, 2), event(Accepted, 2))},
		"an older generation runs":        {RuleGrowth, insert(living(), said(2, "Running", "B", 6), said(1, "Running", "A", 7))},
		"an older report comes again":     {RuleGrowth, insert(living(), said(2, "Running", "B", 6), said(2, "Pending", "A", 4))},
		"one seq says two things":         {RuleGrowth, insert(living(), said(2, "Running", "B", 6), said(2, "Failed", "B", 6))},
		"the cloud goes back":             {RuleGrowth, insert(living(), asked(2, "Active", "B", 6), asked(1, "Active", "A", 6))},

		"the last generation is not confirmed": {RuleConfirmed, replace(living(), known(2, "Running", 6), known(1, "Running", 6))},
		"the last generation is not finished":  {RuleConfirmed, replace(living(), known(2, "Running", 6), known(2, "Preparing", 6))},
		"the node does not have it":            {RuleConfirmed, replace(living(), has(2, "Running", 6, 6))},
		"the bus keeps an old document":        {RuleConfirmed, replace(living(), retained(2, "Active"), retained(1, "Active"))},
		"the bus keeps nothing":                {RuleConfirmed, replace(living(), retained(2, "Active"))},
		"a deleted Device stays": {RuleConfirmed, insert(dying(), run(End),
			Record{Kind: KindEnd, Event: Device, UID: "u", DesiredGeneration: 2, State: "Deleted"})},
		"it never settles": {RuleConfirmed, replace(living(), run(End), Record{Kind: KindRun, Event: End, Detail: "bound passed"})},

		"what was acknowledged was not reported":  {RuleAcks, insert(living(), asked(2, "Active", "B", 6), asked(2, "Active", "B", 9))},
		"the cloud's last word is not the node's": {RuleAcks, replace(living(), has(2, "Running", 6, 6), has(2, "Running", 7, 7))},
		"the last report is not acknowledged":     {RuleAcks, replace(living(), has(2, "Running", 6, 6), has(2, "Running", 6, 4))},

		"deployed twice": {RuleOnce, insert(living(), event(Served, 2), event(Served, 2))},

		"another model than asked for runs": {RuleTruth, replace(living(), said(2, "Running", "B", 6), said(2, "Running", "A", 6))},

		"the node keeps a deleted task":                       {RuleGone, insert(dying(), run(End), has(1, "Running", 3, 3))},
		"the bus keeps a deleted task":                        {RuleGone, insert(dying(), run(End), retained(1, "Active"))},
		"another node's loss of memory is no excuse":          {RuleGrowth, insert(living(), said(2, "Running", "B", 6), wiped("m"), said(1, "Running", "A", 7))},
		"nor is another bus that is not seen":                 {RuleAcks, replace(insert(living(), said(1, "Preparing", "", 2), bus(Blind, "m")), said(1, "Running", "A", 3))},
		"a report below those that passed unseen":             {RuleAcks, insert(living(), said(1, "Preparing", "", 2), bus(Blind, "n"), bus(Seeing, "n"), asked(1, "Active", "A", 1), asked(1, "Active", "A", 5))},
		"a deleted task comes to stay after a loss of memory": {RuleGone, insert(insert(dying(), gone(), wiped("n"), event(Accepted, 1)), run(End), has(1, "Running", 5, 5))},
		"a predecessor is accepted again":                     {RuleGone, insert(successor(), of("v", event(Accepted, 1)), event(Accepted, 2))},
		"a forced task lives on":                              {RuleGone, replace(replace(replace(dying(), asked(2, "Deleted", "", 3), forced()), event(Stopped, 2)), said(2, "Stopped", "", 4))},
		"a Device goes before the node has stopped":           {RuleWord, replace(replace(dying(), said(2, "Stopped", "", 4)), event(Stopped, 2))},
		"the bus keeps the deletion":                          {RuleGone, insert(dying(), run(End), retained(2, "Deleted"))},
		"a deleted task is reported again":                    {RuleGone, insert(dying(), said(2, "Stopped", "", 4), said(2, "Running", "A", 5))},
		"a deleted task is accepted again":                    {RuleGone, insert(dying(), event(Stopped, 2), event(Accepted, 3))},
		"a deleted task is deployed again":                    {RuleGone, insert(dying(), event(Stopped, 2), event(Served, 3))},
	} {
		v, err := check(t, c.records)
		if err != nil || !slices.ContainsFunc(v.Violations, func(v Violation) bool { return v.Rule == c.rule }) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

func TestHistoriesThatCannotBeJudged(t *testing.T) {
	for _, records := range [][]Record{{}, {run(Begin)}, {run(Begin), run(Healed)}, living()[1:]} {
		if _, err := check(t, records); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%v: %v", records, err)
		}
	}
	for _, text := range []string{"{", "[]", `{"seq":"x"}`, "{}\n" + strings.Repeat("x", maxLine+1)} {
		if _, err := Check(strings.NewReader(text)); err == nil || errors.Is(err, ErrIncomplete) {
			t.Errorf("%.20s: %v", text, err)
		}
	}
}
