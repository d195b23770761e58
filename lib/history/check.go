package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Rules that a history can break.
const (
	RuleGrowth    = "generations only grow"              // also: seqs only grow, and one seq says one thing
	RuleConfirmed = "the last generation is confirmed"   // or, for a deletion, the Device is gone
	RuleAcks      = "no acknowledged report is lost"     // what is acknowledged was reported; the cloud's last word is the node's
	RuleOnce      = "a deployment step runs once"        // per uid and generation, unless the node has Lost what it had deployed; restoring after a restart is no step
	RuleTruth     = "what runs is what was asked for"    // Running at a generation means that generation's model
	RuleGone      = "nothing of a deleted task remains"  // or comes back, unless the node lost its memory: then not for long
	RuleWord      = "a Device goes with its node's word" // unless somebody forces it
)

// Violation is one rule broken.
type Violation struct {
	Rule string
	Line int // of the history, where it shows; 0: at its end
	UID  string
	Text string
}

func (v Violation) String() string {
	return fmt.Sprintf("line %d: %s: task %s: %s", v.Line, v.Rule, v.UID, v.Text)
}

// Verdict is what Check finds.
type Verdict struct {
	Records, Tasks, Reports, Kills, Cuts, Wipes int
	Violations                                  []Violation
}

// OK tells whether no rule was broken.
func (v Verdict) OK() bool { return len(v.Violations) == 0 }

func (v Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d records, %d tasks, %d reports, %d kills, %d cuts of links, %d losses of memory: ", v.Records, v.Tasks, v.Reports, v.Kills, v.Cuts, v.Wipes)
	if v.OK() {
		b.WriteString("no violations")
	}
	for _, x := range v.Violations {
		b.WriteString("\n  " + x.String())
	}
	return b.String()
}

// ErrIncomplete: the history has no beginning or no end, and cannot be judged.
var ErrIncomplete = errors.New("history is incomplete")

// maxLine bounds one record in bytes.
const maxLine = 1 << 20

// Check judges a history. An error means that it could not be read.
func Check(r io.Reader) (Verdict, error) {
	j := &judge{tasks: map[string]*life{}, blind: map[string]bool{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		var rec Record
		j.line++
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return j.Verdict, fmt.Errorf("line %d: %w", j.line, err)
		}
		j.Records++
		j.take(&rec)
	}
	if err := lines.Err(); err != nil {
		return j.Verdict, err
	}
	if !j.begun || !j.healed || !j.ended {
		return j.Verdict, fmt.Errorf("%w: expected begin, healed and end", ErrIncomplete)
	}
	j.line = 0
	j.finish()
	j.Tasks = len(j.tasks)
	return j.Verdict, nil
}

// judge reads a history.
type judge struct {
	Verdict
	line                 int
	begun, healed, ended bool
	unsettled            string           // why things did not settle
	tasks                map[string]*life // by uid
	order                []string         // uids in order of appearance
	blind                map[string]bool  // by node: its bus is not seen
}

// life is what was seen of one task, that is of one uid.
type life struct {
	uid     string
	node    string
	name    string           // of its Device
	asked   map[int64]string // model asked for, by generation
	running map[int64]seen   // model that served, by generation, when the node first said Running
	desired int64            // highest generation that was asked for
	deleted bool             // the last document that was seen is a deletion
	gone    bool
	forced  bool
	ever    map[int64]bool // seqs that were seen on the bus
	acks    map[int64]int  // acknowledged seqs, with the line
	blind   bool           // nothing was seen of it on the bus since the bus was not seen
	unseen  []span         // seqs that may have passed while the bus was not seen

	// Since the node last lost its memory.
	known    bool             // the node has shown that it knows the task
	reports  map[int64]Record // by seq
	last     Record           // report on the bus
	accepted int64
	served   map[int64]bool // since the last Lost
	stopped  bool           // as the node's events say
	buried   bool           // as its reports say; the two come by ways that are not in step

	device, task *Record // at the end
	retained     []Record
}

type seen struct {
	model string
	line  int
}

// span is the seqs above one and below another, 0 for no bound.
type span struct{ above, below int64 }

func (j *judge) life(r *Record) *life {
	l := j.tasks[r.UID]
	if l == nil {
		l = &life{uid: r.UID, asked: map[int64]string{}, running: map[int64]seen{}, ever: map[int64]bool{}, acks: map[int64]int{}}
		l.forget()
		j.tasks[r.UID] = l
		j.order = append(j.order, r.UID)
	}
	if l.name == "" {
		l.name = r.Namespace + "/" + r.Device
	}
	if l.node == "" && r.Node != "" {
		l.node = r.Node
		if j.blind[l.node] {
			l.lookAway()
		}
	}
	return l
}

// forget is what a loss of the node's memory makes of what it has shown.
func (l *life) forget() {
	l.known, l.stopped, l.buried, l.accepted, l.last = false, false, false, 0, Record{}
	l.reports, l.served = map[int64]Record{}, map[int64]bool{}
}

// lookAway notes that the node's bus is not seen from here on.
func (l *life) lookAway() {
	clear(l.served) // a Lost may be missed
	if !l.blind {
		l.blind = true
		l.unseen = append(l.unseen, span{above: l.last.Seq})
	}
}

// look notes a report that is seen.
func (l *life) look(seq int64) {
	if l.blind {
		l.blind = false
		l.unseen[len(l.unseen)-1].below = seq
	}
}

// mayHavePassed tells whether the report may have passed unseen.
func (l *life) mayHavePassed(seq int64) bool {
	return slices.ContainsFunc(l.unseen, func(s span) bool { return seq > s.above && (s.below == 0 || seq < s.below) })
}

func (j *judge) blame(rule, uid, format string, args ...any) {
	j.Violations = append(j.Violations, Violation{rule, j.line, uid, fmt.Sprintf(format, args...)})
}

func (j *judge) take(r *Record) {
	switch r.Kind {
	case KindRun:
		j.run(r)
	case KindProcess:
		switch r.Event {
		case Killed:
			j.Kills++
		case Wiped:
			j.Wipes++
			j.each(r.Node, (*life).forget)
		}
	case KindLink:
		if r.Event == Down {
			j.Cuts++
		}
	case KindAPI, KindBus, KindEnd:
		switch {
		case r.Event == Blind || r.Event == Seeing:
			j.blind[r.Node] = r.Event == Blind
			j.each(r.Node, (*life).lookAway)
		case r.UID != "":
			j.task(r, j.life(r))
		}
	}
}

// supersede notes that a node has taken l: what it had under the Device's name
// before, of another uid, has ended by that.
func (j *judge) supersede(l *life) {
	for _, other := range j.tasks {
		if other != l && other.node == l.node && other.name == l.name && other.known {
			other.stopped = true
		}
	}
}

// each calls f for the tasks of a node.
func (j *judge) each(node string, f func(*life)) {
	for _, l := range j.tasks {
		if l.node == node {
			f(l)
		}
	}
}

func (j *judge) run(r *Record) {
	switch r.Event {
	case Begin:
		j.begun = true
	case Healed:
		j.healed = true
	case End:
		j.ended, j.unsettled = true, r.Detail
	}
}

func (j *judge) task(r *Record, l *life) {
	switch r.Event {
	case Desired:
		j.desiredSeen(r, l)
	case Reported:
		j.Reports++
		if r.Kind == KindBus {
			j.reported(r, l)
		}
		if r.Phase == "Running" {
			if _, ok := l.running[r.Generation]; !ok {
				l.running[r.Generation] = seen{r.Model, j.line}
			}
		}
	case Gone:
		l.gone = true
	case Forced:
		l.forced = true
	case Accepted, Deleted:
		if r.Generation <= l.accepted {
			j.blame(RuleGrowth, l.uid, "generation %d accepted after %d", r.Generation, l.accepted)
		}
		l.accepted, l.known = max(l.accepted, r.Generation), true
		if r.Event == Accepted && l.stopped {
			j.blame(RuleGone, l.uid, "generation %d accepted after the task had stopped", r.Generation)
		}
		j.supersede(l)
	case Served:
		if l.served[r.Generation] {
			j.blame(RuleOnce, l.uid, "generation %d was deployed twice", r.Generation)
		}
		l.served[r.Generation] = true
		if l.stopped {
			j.blame(RuleGone, l.uid, "generation %d deployed after the task had stopped", r.Generation)
		}
	case Lost:
		clear(l.served)
	case Stopped:
		l.stopped = true
	case Device:
		l.device = r
	case Task:
		l.task = r
	case Retained:
		l.retained = append(l.retained, *r)
	}
}

// desiredSeen takes a document that was seen, in the cloud or on the bus.
func (j *judge) desiredSeen(r *Record, l *life) {
	if r.State == "Active" && r.Model != "" {
		l.asked[r.DesiredGeneration] = r.Model
	}
	if r.Kind != KindAPI {
		return
	}
	if r.DesiredGeneration < l.desired {
		j.blame(RuleGrowth, l.uid, "the cloud asks for generation %d after %d", r.DesiredGeneration, l.desired)
	}
	l.desired = max(l.desired, r.DesiredGeneration)
	l.deleted = r.State == "Deleted"
	if _, ok := l.acks[r.Acked]; r.Acked > 0 && !ok {
		l.acks[r.Acked] = j.line
	}
}

// reported takes a report that the node has put on the bus.
func (j *judge) reported(r *Record, l *life) {
	if before, ok := l.reports[r.Seq]; ok && (before.Generation != r.Generation || before.Phase != r.Phase || before.Model != r.Model) {
		j.blame(RuleGrowth, l.uid, "report %d said %d %s %s, now it says %d %s %s", r.Seq, before.Generation, before.Phase, before.Model, r.Generation, r.Phase, r.Model)
	}
	l.reports[r.Seq], l.ever[r.Seq], l.known = *r, true, true
	l.look(r.Seq)
	if r.Seq < l.last.Seq {
		j.blame(RuleGrowth, l.uid, "report %d after %d", r.Seq, l.last.Seq)
	}
	if r.Generation < l.last.Generation {
		j.blame(RuleGrowth, l.uid, "generation %d runs after %d", r.Generation, l.last.Generation)
	}
	if l.buried && r.Phase != "Stopped" {
		j.blame(RuleGone, l.uid, "%s reported after the task had stopped", r.Phase)
	}
	l.buried = l.buried || r.Phase == "Stopped"
	l.last = *r
}

// finish judges what can be judged at the end only.
func (j *judge) finish() {
	if j.unsettled != "" {
		j.blame(RuleConfirmed, "-", "not settled: %s", j.unsettled)
	}
	for _, uid := range j.order {
		l := j.tasks[uid]
		for seq, line := range l.acks {
			if !l.ever[seq] && !l.mayHavePassed(seq) {
				j.line = line
				j.blame(RuleAcks, uid, "report %d was acknowledged and was never on the bus", seq)
			}
		}
		for generation, s := range l.running {
			if want := l.asked[generation]; want != "" && s.model != want {
				j.line = s.line
				j.blame(RuleTruth, uid, "generation %d asks for model %s, Running is %s", generation, want, s.model)
			}
		}
		j.line = 0
		if l.device != nil && l.device.State != "Deleted" {
			j.living(l, l.device)
		} else {
			j.dead(l)
		}
	}
	slices.SortStableFunc(j.Violations, func(a, b Violation) int { return a.Line - b.Line })
}

// living judges a task that is to run.
func (j *judge) living(l *life, d *Record) {
	if d.Generation != d.DesiredGeneration {
		j.blame(RuleConfirmed, l.uid, "generation %d is asked for, the cloud knows of %d", d.DesiredGeneration, d.Generation)
	} else if d.Phase != "Running" && d.Phase != "Failed" && d.Phase != "Succeeded" {
		j.blame(RuleConfirmed, l.uid, "generation %d is %s", d.DesiredGeneration, d.Phase)
	}
	if l.desired > d.DesiredGeneration {
		j.blame(RuleGrowth, l.uid, "the cloud has gone back to generation %d from %d", d.DesiredGeneration, l.desired)
	}
	switch {
	case l.task == nil:
		j.blame(RuleConfirmed, l.uid, "the node does not have it")
	case l.task.Generation != d.Generation || l.task.Phase != d.Phase || l.task.Seq != d.Seq:
		j.blame(RuleAcks, l.uid, "the node is at generation %d, %s, report %d; the cloud knows %d, %s, report %d",
			l.task.Generation, l.task.Phase, l.task.Seq, d.Generation, d.Phase, d.Seq)
	case l.task.Acked != l.task.Seq:
		j.blame(RuleAcks, l.uid, "report %d is not acknowledged, the node knows of %d", l.task.Seq, l.task.Acked)
	}
	for _, m := range l.retained {
		if m.DesiredGeneration != d.DesiredGeneration || m.State != d.State {
			j.blame(RuleConfirmed, l.uid, "the bus keeps %s generation %d, asked for is %s %d", m.State, m.DesiredGeneration, d.State, d.DesiredGeneration)
		}
	}
	if len(l.retained) == 0 {
		j.blame(RuleConfirmed, l.uid, "the bus does not keep its document")
	}
}

// dead judges a task that is to be gone.
func (j *judge) dead(l *life) {
	if l.device != nil {
		j.blame(RuleConfirmed, l.uid, "it is to be gone, and its Device is there")
	}
	if l.task != nil {
		j.blame(RuleGone, l.uid, "the node still has it, %s", l.task.Phase)
	}
	for _, m := range l.retained {
		j.blame(RuleGone, l.uid, "the bus keeps its %s document", m.State)
	}
	if l.known && !l.stopped && !l.buried && !l.blind {
		rule := RuleWord
		if l.forced {
			rule = RuleGone
		}
		j.blame(rule, l.uid, "the node never said that it stopped")
	}
}
