package v1alpha1

import (
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TrainingDataset is the data of a job that learns from its growth.
type TrainingDataset struct {
	// Name of the Dataset.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// TrainProb is the share of new samples that is trained on; the others evaluate.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	TrainProb float64 `json:"trainProb"`
}

// TrainSpec is the stage that trains, by a template's worker or built in.
//
// +kubebuilder:validation:XValidation:rule="has(self.template) != has(self.trainer)",message="trainer: expected exactly one of template and trainer"
// +kubebuilder:validation:XValidation:rule="!has(self.trainer) || has(self.trainer.plugin) || self.trainer.name in ['softmax','mlp']",message="trainer.name: expected softmax or mlp, or a plugin"
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector)) ? 1 : 0) <= 1",message="nodeName: expected at most one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
// +kubebuilder:validation:XValidation:rule="!has(self.trigger.condition) || self.trigger.condition.metric in ['num_of_samples','hard_example_ratio','drift']",message="trigger.condition.metric: expected num_of_samples, hard_example_ratio or drift; other metrics are known after training only"
// +kubebuilder:validation:XValidation:rule="!has(self.trigger.condition) || self.trigger.condition.threshold > 0.0 || (self.trigger.condition.threshold == 0.0 && !(self.trigger.condition.operator in ['<','lt']))",message="trigger.condition.threshold: expected 0 or more, above 0 with <; these metrics are never below 0"
// +kubebuilder:validation:XValidation:rule="!has(self.trigger.condition) || self.trigger.condition.metric != 'hard_example_ratio' || self.trigger.condition.threshold <= 1.0",message="trigger.condition.threshold: expected at most 1, as hard_example_ratio is a share"
type TrainSpec struct {
	// Template of the worker's pod; without one the trainer runs built in.
	Template *PodTemplate `json:"template,omitempty"`
	// Trigger says when a round begins.
	Trigger Trigger `json:"trigger"`
	// Trainer that runs without a template: softmax, mlp or a plugin.
	Trainer *Algorithm `json:"trainer,omitempty"`
	// Without a node of any kind the stage runs where the Dataset is.
	Placement `json:",inline"`
}

// Trigger says when a stage begins: by its condition, within the hours of its
// timer, and by its schedule.
//
// +kubebuilder:validation:XValidation:rule="has(self.condition) || has(self.schedule)",message="condition: expected condition or schedule, or the trigger could never fire"
// +kubebuilder:validation:XValidation:rule="!has(self.timeZone) || has(self.schedule) || has(self.timer)",message="timeZone: expected with schedule or timer only"
type Trigger struct {
	// CheckPeriodSeconds between two looks at the condition; 60 by default.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	// +kubebuilder:default=60
	CheckPeriodSeconds int `json:"checkPeriodSeconds,omitempty"`
	// Timer is the part of each day in which the trigger may fire.
	Timer *Timer `json:"timer,omitempty"`
	// Condition on a metric.
	Condition *Condition `json:"condition,omitempty"`

	// Schedule is a cron line of five fields (minute, hour, day of the month,
	// month, day of the week with Sunday as 0), or @hourly, @daily, @weekly, @monthly, @yearly.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.lowerAscii().matches('^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|(([*]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[1-9][0-9]?)?)(,(([*]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[1-9][0-9]?)?))* +(([*]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[1-9][0-9]?)?)(,(([*]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[1-9][0-9]?)?))* +(([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[1-9][0-9]?)?)(,(([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[1-9][0-9]?)?))* +(([*]|(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(-(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))?)(/[1-9][0-9]?)?)(,(([*]|(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(-(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))?)(/[1-9][0-9]?)?))* +(([*?]|([0-6]|sun|mon|tue|wed|thu|fri|sat)(-([0-6]|sun|mon|tue|wed|thu|fri|sat))?)(/[1-9][0-9]?)?)(,(([*?]|([0-6]|sun|mon|tue|wed|thu|fri|sat)(-([0-6]|sun|mon|tue|wed|thu|fri|sat))?)(/[1-9][0-9]?)?))*)$')",message="expected a cron line such as \"0 3 * * mon-fri\": minute 0-59, hour 0-23, day 1-31, month 1-12, day of the week 0-6; or @hourly, @daily, @weekly, @monthly, @yearly"
	Schedule string `json:"schedule,omitempty"`
	// TimeZone of schedule and timer, such as Europe/Berlin; by default that of the node.
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9_+/-]*$`
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
}

// Timer is a part of each day. An end before the start is on the next day.
//
// +kubebuilder:validation:XValidation:rule="string(self.start) != string(self.end) && '0' + string(self.start) != string(self.end) && string(self.start) != '0' + string(self.end)",message="end: expected another time than start, or the window would be empty; leave timer out for all day"
type Timer struct {
	// Start of the window, "HH:MM" in quotes.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="type(self) == string && self.matches('^(([01]?[0-9]|2[0-3]):[0-5][0-9]|24:00)$')",message="expected \"HH:MM\" in quotes, such as \"20:00\"; without quotes some programs read 20:00 as the number 1200"
	Start intstr.IntOrString `json:"start"`
	// End of the window, "HH:MM" in quotes; "24:00" is the end of the day.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="type(self) == string && self.matches('^(([01]?[0-9]|2[0-3]):[0-5][0-9]|24:00)$')",message="expected \"HH:MM\" in quotes, such as \"20:00\"; without quotes some programs read 20:00 as the number 1200"
	End intstr.IntOrString `json:"end"`
}

// Condition compares a metric with a threshold.
type Condition struct {
	// Operator: gt or >, ge or >=, eq, = or ==, ne or !=, le or <=, lt or <.
	// +kubebuilder:validation:Pattern=`^(gt|>|ge|>=|eq|=|==|ne|!=|le|<=|lt|<)$`
	Operator string `json:"operator"`
	// Threshold that the metric is compared with.
	Threshold float64 `json:"threshold"`
	// Metric by name, or one value of a metric that has several: name[0]. Of
	// several values without an index the last one counts.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^][ ]+([[][0-9]+])?$')",message="expected a metric's name, or one of its values as name[0]"
	Metric string `json:"metric"`
}
