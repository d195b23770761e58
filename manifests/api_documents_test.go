package manifests_test

import (
	"strings"
)

// The minimal documents of the reference system, to the letter.
const (
	referenceIL = `
  spec:
    initialModel: {name: m}
    dataset: {name: d, trainProb: 0.8}
    outputDir: /srv/out
    trainSpec: {template: {spec: {containers: [{name: t, image: i/t}]}}, trigger: {condition: {operator: ">", threshold: 100, metric: num_of_samples}}}
    evalSpec: {template: {spec: {containers: [{name: e, image: i/t}]}}}
    deploySpec: {model: {name: dep}, hardExampleMining: {name: IBT}, trigger: {condition: {operator: ">", threshold: 0.1, metric: "precision_delta[0]"}}, template: {spec: {containers: [{name: i, image: i/i}]}}}
`
	referenceFL = `
  spec:
    aggregationWorker: {model: {name: m}, template: {spec: {containers: [{name: g, image: i/g}]}}}
    trainingWorkers: [{dataset: {name: d}, template: {spec: {nodeName: edge-a, containers: [{name: t, image: i/t}]}}}]
`
	referenceLL = `
  spec:
    dataset: {name: d, trainProb: 0.8}
    outputDir: /srv/out
    trainSpec: {template: {spec: {containers: [{name: t, image: i/t}]}}, trigger: {condition: {operator: ">", threshold: 100, metric: num_of_samples}}}
    evalSpec: {template: {spec: {containers: [{name: e, image: i/t}]}}}
    deploySpec: {template: {spec: {containers: [{name: i, image: i/i}]}}}
`
	worker = `template: {spec: {containers: [{name: w, image: i/w}]}}`
)

// il gives a job of our own form in which the named parts of the spec are
// replaced; the rest is good.
func il(part string) string {
	return spec(part, `dataset: {name: d, trainProb: 0.5}`, `initialModel: {name: m}`, `outputDir: /o`,
		`trainSpec: {trainer: {name: mlp}, trigger: {condition: {metric: num_of_samples, operator: ">=", threshold: 10}}}`,
		`evalSpec: {}`,
		`deploySpec: {model: {name: m}, hardExampleMining: {name: IBT}, trigger: {condition: {metric: accuracy, operator: gt, threshold: 0}}}`)
}

func ll(part string) string {
	return spec(part, `dataset: {name: d, trainProb: 0.5}`, `outputDir: /o`,
		`trainSpec: {trainer: {name: softmax}, trigger: {condition: {metric: num_of_samples, operator: ">=", threshold: 10}}}`,
		`evalSpec: {}`, `deploySpec: {}`)
}

func fl(part string) string {
	return spec(part, `aggregationWorker: {model: {name: m}}`, `trainingWorkers: [{dataset: {name: d}, nodeName: e, trainer: {name: mlp}}]`)
}

func spec(part string, parts ...string) string {
	name, _, _ := strings.Cut(part, ":")
	kept := []string{}
	for _, p := range parts {
		if !strings.HasPrefix(p, name+":") {
			kept = append(kept, p)
		}
	}
	if part != "" {
		kept = append(kept, part)
	}
	return "spec: {" + strings.Join(kept, ", ") + "}"
}

// train gives a job whose stage of training has the trigger.
func train(trigger string) string {
	return il(`trainSpec: {trainer: {name: mlp}, trigger: {` + trigger + `}}`)
}

func timer(start, end string) string {
	return train(`condition: {metric: num_of_samples, operator: ge, threshold: 1}, timer: {start: ` + start + `, end: ` + end + `}`)
}

func schedule(line string) string {
	return train(`schedule: "` + line + `", timeZone: Europe/Berlin`)
}

func condition(c string) string {
	return train(`condition: {` + c + `}`)
}

// deploy gives a job whose stage of deployment has more.
func deploy(more string) string {
	return il(`deploySpec: {model: {name: m}, hardExampleMining: {name: IBT}, trigger: {condition: {metric: accuracy, operator: gt, threshold: 0}}, ` + more + `}`)
}

func jobDocuments() map[string]document {
	const ilKind, flKind, llKind = "IncrementalLearningJob", "FederatedLearningJob", "LifelongLearningJob"
	hhmm := `expected "HH:MM" in quotes`
	return map[string]document{
		"reference IncrementalLearningJob": {kind: ilKind, text: referenceIL},
		"reference FederatedLearningJob":   {kind: flKind, text: referenceFL},
		"reference LifelongLearningJob":    {kind: llKind, text: referenceLL},

		"il, built in":                    {kind: ilKind, text: il("")},
		"il, initial evaluation":          {kind: ilKind, text: il(`evalSpec: {initialEvalModel: {name: x}, trainer: {name: softmax}, nodeName: e}`)},
		"il, credential":                  {kind: ilKind, text: il(`credentialName: secret`)},
		"il, name with a dot":             {kind: ilKind, name: "a.b", text: il(""), words: []string{"metadata.name", "DNS label"}},
		"il, trainProb":                   {kind: ilKind, text: il(`dataset: {name: d, trainProb: 1.5}`), words: []string{"spec.dataset.trainProb", "1"}},
		"il, trainProb below 0":           {kind: ilKind, text: il(`dataset: {name: d, trainProb: -0.1}`), words: []string{"spec.dataset.trainProb", "0"}},
		"il, trainProb is text":           {kind: ilKind, text: il(`dataset: {name: d, trainProb: "0.8"}`), words: []string{"spec.dataset.trainProb", "number"}},
		"il, all for training":            {kind: ilKind, text: il(`dataset: {name: d, trainProb: 1}`)},
		"il, no dataset":                  {kind: ilKind, text: il(`dataset: {trainProb: 1}`), words: []string{"spec.dataset.name", "Required"}},
		"il, no output":                   {kind: ilKind, text: il(`outputDir: ""`), words: []string{"spec.outputDir"}},
		"il, template and trainer":        {kind: ilKind, text: il(`trainSpec: {trainer: {name: mlp}, ` + worker + `, trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec", "trainer: expected exactly one of template and trainer"}},
		"il, neither":                     {kind: ilKind, text: il(`trainSpec: {trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec", "trainer: expected exactly one"}},
		"il, evaluated twice":             {kind: ilKind, text: il(`evalSpec: {trainer: {name: mlp}, ` + worker + `}`), words: []string{"spec.evalSpec", "trainer"}},
		"il, unknown trainer":             {kind: ilKind, text: il(`trainSpec: {trainer: {name: resnet}, trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec", "trainer.name: expected softmax or mlp"}},
		"il, trainer as plugin":           {kind: ilKind, text: il(`trainSpec: {trainer: {name: resnet, plugin: {argv: [/opt/resnet, --fast]}}, trigger: {schedule: "@daily"}}`)},
		"il, plugin by url":               {kind: ilKind, text: il(`trainSpec: {trainer: {name: resnet, plugin: {url: "http://127.0.0.1:8000"}}, trigger: {schedule: "@daily"}}`)},
		"il, plugin twice":                {kind: ilKind, text: il(`trainSpec: {trainer: {name: r, plugin: {argv: [a], url: "http://b"}}, trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec.trainer.plugin", "exactly one of argv and url"}},
		"il, empty plugin":                {kind: ilKind, text: il(`trainSpec: {trainer: {name: r, plugin: {}}, trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec.trainer.plugin", "exactly one of argv and url"}},
		"il, plugin's scheme":             {kind: ilKind, text: il(`trainSpec: {trainer: {name: r, plugin: {url: "unix:/x"}}, trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec.trainer.plugin.url"}},
		"il, two nodes":                   {kind: ilKind, text: il(`trainSpec: {trainer: {name: mlp}, nodeName: a, nodeSelector: {a: b}, trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec", "nodeName: expected at most one of"}},
		"il, node and template's":         {kind: ilKind, text: il(`evalSpec: {nodeName: a, template: {spec: {nodeName: b, containers: [{name: w, image: i}]}}}`), words: []string{"spec.evalSpec", "nodeName: expected at most one of"}},
		"il, node of a template":          {kind: ilKind, text: il(`evalSpec: {nodeName: a, ` + worker + `}`)},
		"il, trigger without any":         {kind: ilKind, text: train(`checkPeriodSeconds: 5`), words: []string{"spec.trainSpec.trigger", "condition: expected condition or schedule"}},
		"il, checked never":               {kind: ilKind, text: train(`schedule: "@daily", checkPeriodSeconds: -1`), words: []string{"spec.trainSpec.trigger.checkPeriodSeconds"}},
		"il, checked too seldom":          {kind: ilKind, text: train(`schedule: "@daily", checkPeriodSeconds: 1e30`), words: []string{"spec.trainSpec.trigger.checkPeriodSeconds"}},
		"il, timer":                       {kind: ilKind, text: timer(`"02:00"`, `"20:00"`)},
		"il, timer over midnight":         {kind: ilKind, text: timer(`"22:30"`, `"6:00"`)},
		"il, timer all day":               {kind: ilKind, text: timer(`"00:00"`, `"24:00"`)},
		"il, time as YAML 1.1 reads it":   {kind: ilKind, text: timer(`"02:00"`, `1200`), words: []string{"spec.trainSpec.trigger.timer.end", "1200", hhmm}},
		"il, time with seconds":           {kind: ilKind, text: timer(`"02:00:00"`, `"20:00"`), words: []string{"spec.trainSpec.trigger.timer.start", hhmm}},
		"il, time with words":             {kind: ilKind, text: timer(`"8 in the morning, or so"`, `"20:00"`), words: []string{"spec.trainSpec.trigger.timer.start"}},
		"il, time after the day's end":    {kind: ilKind, text: timer(`"02:00"`, `"24:01"`), words: []string{"spec.trainSpec.trigger.timer.end", hhmm}},
		"il, time is a fraction":          {kind: ilKind, text: timer(`"02:00"`, `20.5`), words: []string{"spec.trainSpec.trigger.timer.end"}},
		"il, start is end":                {kind: ilKind, text: timer(`"20:00"`, `"20:00"`), words: []string{"spec.trainSpec.trigger.timer", "end: expected another time than start"}},
		"il, start is end, written else":  {kind: ilKind, text: timer(`"9:00"`, `"09:00"`), words: []string{"spec.trainSpec.trigger.timer", "end: expected another time than start"}},
		"il, no end":                      {kind: ilKind, text: train(`schedule: "@daily", timer: {start: "02:00"}`), words: []string{"spec.trainSpec.trigger.timer.end", "Required"}},
		"il, schedule":                    {kind: ilKind, text: schedule("0 3 * * *")},
		"il, schedule, all forms":         {kind: ilKind, text: schedule("*/15,3 0-6/2,22 1,15-20 JAN-mar,12 Mon-fri,0")},
		"il, schedule by name":            {kind: ilKind, text: schedule("@hourly")},
		"il, schedule's minute":           {kind: ilKind, text: schedule("60 * * * *"), words: []string{"spec.trainSpec.trigger.schedule", "minute 0-59"}},
		"il, schedule's hour":             {kind: ilKind, text: schedule("0 24 * * *"), words: []string{"spec.trainSpec.trigger.schedule", "hour 0-23"}},
		"il, schedule's day":              {kind: ilKind, text: schedule("0 0 32 * *"), words: []string{"spec.trainSpec.trigger.schedule"}},
		"il, schedule's month":            {kind: ilKind, text: schedule("0 0 * 0 *"), words: []string{"spec.trainSpec.trigger.schedule"}},
		"il, schedule's weekday":          {kind: ilKind, text: schedule("0 0 * * 7"), words: []string{"spec.trainSpec.trigger.schedule", "0-6"}},
		"il, schedule of four fields":     {kind: ilKind, text: schedule("0 0 * *"), words: []string{"spec.trainSpec.trigger.schedule", "cron"}},
		"il, schedule in words":           {kind: ilKind, text: schedule("every night"), words: []string{"spec.trainSpec.trigger.schedule", "cron"}},
		"il, time zone alone":             {kind: ilKind, text: train(`condition: {metric: drift, operator: gt, threshold: 1}, timeZone: UTC`), words: []string{"spec.trainSpec.trigger", "timeZone"}},
		"il, time zone with a space":      {kind: ilKind, text: train(`schedule: "@daily", timeZone: "Europe/ Berlin"`), words: []string{"spec.trainSpec.trigger.timeZone"}},
		"il, drift":                       {kind: ilKind, text: condition(`metric: drift, operator: ">", threshold: 0.2`)},
		"il, share of hard examples":      {kind: ilKind, text: condition(`metric: hard_example_ratio, operator: ">", threshold: 0.3`)},
		"il, share above 1":               {kind: ilKind, text: condition(`metric: hard_example_ratio, operator: ">", threshold: 3`), words: []string{"spec.trainSpec", "trigger.condition.threshold", "at most 1"}},
		"il, metric before training":      {kind: ilKind, text: condition(`metric: accuracy, operator: ">", threshold: 3`), words: []string{"spec.trainSpec", "trigger.condition.metric", "num_of_samples"}},
		"il, negative number of samples":  {kind: ilKind, text: condition(`metric: num_of_samples, operator: ">", threshold: -5`), words: []string{"spec.trainSpec", "trigger.condition.threshold", "0 or more"}},
		"il, fewer than no samples":       {kind: ilKind, text: condition(`metric: num_of_samples, operator: "<", threshold: 0`), words: []string{"spec.trainSpec", "trigger.condition.threshold"}},
		"il, operator":                    {kind: ilKind, text: condition(`metric: num_of_samples, operator: "=>", threshold: 5`), words: []string{"spec.trainSpec.trigger.condition.operator", "ge|>="}},
		"il, operator missing":            {kind: ilKind, text: condition(`metric: num_of_samples, threshold: 5`), words: []string{"spec.trainSpec.trigger.condition.operator", "Required"}},
		"il, threshold is text":           {kind: ilKind, text: condition(`metric: num_of_samples, operator: gt, threshold: "5"`), words: []string{"spec.trainSpec.trigger.condition.threshold", "number"}},
		"il, delta below 0":               {kind: ilKind, text: deploy(`rollbackOn: {metric: accuracy_delta, operator: "<", threshold: -0.1}`)},
		"il, index below 0":               {kind: ilKind, text: deploy(`rollbackOn: {metric: "accuracy[-1]", operator: "<", threshold: 0.1}`), words: []string{"spec.deploySpec.rollbackOn.metric", "name[0]"}},
		"il, canary":                      {kind: ilKind, text: deploy(`strategy: canary, canaryPercent: 99, nodeSelector: {a: b}`)},
		"il, canary of all":               {kind: ilKind, text: deploy(`strategy: canary, canaryPercent: 100`), words: []string{"spec.deploySpec.canaryPercent", "99"}},
		"il, canary of none":              {kind: ilKind, text: deploy(`strategy: canary, canaryPercent: 0`), words: []string{"spec.deploySpec.canaryPercent", "1"}},
		"il, percent without a canary":    {kind: ilKind, text: deploy(`canaryPercent: 5`), words: []string{"spec.deploySpec", "canaryPercent: expected with strategy canary"}},
		"il, strategy":                    {kind: ilKind, text: deploy(`strategy: bluegreen`), words: []string{"spec.deploySpec.strategy", `"shadow"`}},
		"il, canary with a template":      {kind: ilKind, text: deploy(`strategy: canary, ` + worker), words: []string{"spec.deploySpec", "strategy: with a template"}},
		"il, rollback with a template":    {kind: ilKind, text: deploy(`rollbackOn: {metric: a, operator: "<", threshold: 1}, ` + worker), words: []string{"spec.deploySpec", "rollbackOn"}},
		"il, rule with a template":        {kind: ilKind, text: il(`deploySpec: {model: {name: m}, hardExampleMining: {name: MyRule}, trigger: {schedule: "@daily"}, ` + worker + `}`)},
		"il, rule without a template":     {kind: ilKind, text: il(`deploySpec: {model: {name: m}, hardExampleMining: {name: MyRule}, trigger: {schedule: "@daily"}}`), words: []string{"spec.deploySpec", "hardExampleMining.name", "CrossEntropy"}},
		"il, hot update":                  {kind: ilKind, text: il(`deploySpec: {model: {name: m, hotUpdateEnabled: true, pollPeriodSeconds: 5}, hardExampleMining: {name: IBT}, trigger: {schedule: "@daily"}, ` + worker + `}`)},
		"il, polled never":                {kind: ilKind, text: il(`deploySpec: {model: {name: m, pollPeriodSeconds: 0}, hardExampleMining: {name: IBT}, trigger: {schedule: "@daily"}}`), words: []string{"spec.deploySpec.model.pollPeriodSeconds"}},
		"il, unknown field in the depths": {kind: ilKind, text: train(`schedule: "@daily", condtion: {}`), words: []string{"spec.trainSpec.trigger.condtion"}},

		"ll, built in":             {kind: llKind, text: ll(`deploySpec: {nodeSelector: {a: b}}`)},
		"ll, trainProb":            {kind: llKind, text: ll(`dataset: {name: d, trainProb: 2}`), words: []string{"spec.dataset.trainProb"}},
		"ll, no trainer":           {kind: llKind, text: ll(`trainSpec: {trigger: {schedule: "@daily"}}`), words: []string{"spec.trainSpec", "trainer"}},
		"ll, time":                 {kind: llKind, text: ll(`trainSpec: {trainer: {name: mlp}, trigger: {schedule: "@daily", timer: {start: 1200, end: "24:00"}}}`), words: []string{"spec.trainSpec.trigger.timer.start", hhmm}},
		"ll, deployment's trigger": {kind: llKind, text: ll(`deploySpec: {trigger: {schedule: "@daily"}}`), words: []string{"spec.deploySpec.trigger"}},
		"ll, long name":            {kind: llKind, name: strings.Repeat("a", 64), text: ll(""), words: []string{"metadata.name"}},

		"fl, built in":                   {kind: flKind, text: fl(`aggregation: {name: Krum, parameters: [{key: f, value: "1"}]}`)},
		"fl, all":                        {kind: flKind, text: fl(`rounds: 3, clients: {min: 2, perRound: 2, chooser: powerOfChoice}, roundTimeoutSeconds: 5, stopCondition: {metric: loss, patience: 3}, privacy: {clipNorm: 0.5, noiseMultiplier: 1.1, secureAggregation: true}, pretrainedModel: {name: x}`)},
		"fl, reference's transmitters":   {kind: flKind, text: fl(`transmitter: {ws: {}, s3: {aggDataPath: "s3://b/p", credentialName: c}}`)},
		"fl, empty pretrained model":     {kind: flKind, text: fl(`pretrainedModel: {name: ""}`)},
		"fl, s3 without a path":          {kind: flKind, text: fl(`transmitter: {s3: {}}`), words: []string{"spec.transmitter.s3.aggDataPath", "Required"}},
		"fl, no clients":                 {kind: flKind, text: fl(`trainingWorkers: []`), words: []string{"spec.trainingWorkers"}},
		"fl, client nowhere":             {kind: flKind, text: fl(`trainingWorkers: [{dataset: {name: d}, trainer: {name: mlp}}]`), words: []string{"spec.trainingWorkers[0]", "nodeName: without a template expected"}},
		"fl, client in two places":       {kind: flKind, text: fl(`trainingWorkers: [{dataset: {name: d}, trainer: {name: mlp}, nodeName: a, nodeSelector: {a: b}}]`), words: []string{"spec.trainingWorkers[0]", "nodeName: expected at most one of"}},
		"fl, client does nothing":        {kind: flKind, text: fl(`trainingWorkers: [{dataset: {name: d}, nodeName: a}]`), words: []string{"spec.trainingWorkers[0]", "trainer: expected exactly one"}},
		"fl, template without a node":    {kind: flKind, text: fl(`trainingWorkers: [{dataset: {name: d}, ` + worker + `}]`)},
		"fl, a thousand clients":         {kind: flKind, text: fl(`trainingWorkers: [` + strings.Repeat(`{dataset: {name: d}, nodeName: e, trainer: {name: mlp}},`, 1000) + `]`)},
		"fl, more than a thousand":       {kind: flKind, text: fl(`trainingWorkers: [` + strings.Repeat(`{dataset: {name: d}, nodeName: e, trainer: {name: mlp}},`, 1001) + `]`), words: []string{"spec.trainingWorkers", "1000"}},
		"fl, aggregation":                {kind: flKind, text: fl(`aggregation: {name: FedAgv}`), words: []string{"spec", "aggregation.name", "FedAvg"}},
		"fl, aggregation as plugin":      {kind: flKind, text: fl(`aggregation: {name: mine, plugin: {argv: [/opt/agg]}}`)},
		"fl, aggregation by template":    {kind: flKind, text: fl(`aggregationWorker: {model: {name: m}, ` + worker + `}, aggregation: {name: mine}`)},
		"fl, no rounds":                  {kind: flKind, text: fl(`rounds: 0`), words: []string{"spec.rounds", "1"}},
		"fl, no time":                    {kind: flKind, text: fl(`roundTimeoutSeconds: 0`), words: []string{"spec.roundTimeoutSeconds"}},
		"fl, more needed than asked":     {kind: flKind, text: fl(`clients: {min: 3, perRound: 2}`), words: []string{"spec.clients", "min: expected at most perRound"}},
		"fl, chooser":                    {kind: flKind, text: fl(`clients: {chooser: best}`), words: []string{"spec.clients.chooser", `"powerOfChoice"`}},
		"fl, stop at nothing":            {kind: flKind, text: fl(`stopCondition: {metric: loss}`), words: []string{"spec.stopCondition", "operator: expected operator and threshold, or patience"}},
		"fl, stop, no threshold":         {kind: flKind, text: fl(`stopCondition: {metric: loss, operator: "<"}`), words: []string{"spec.stopCondition", "threshold"}},
		"fl, stop, operator":             {kind: flKind, text: fl(`stopCondition: {metric: loss, operator: below, threshold: 1}`), words: []string{"spec.stopCondition.operator"}},
		"fl, noise without a norm":       {kind: flKind, text: fl(`privacy: {noiseMultiplier: 1}`), words: []string{"spec.privacy", "clipNorm: expected together with noiseMultiplier"}},
		"fl, norm 0":                     {kind: flKind, text: fl(`privacy: {clipNorm: 0}`), words: []string{"spec.privacy.clipNorm"}},
		"fl, noise below 0":              {kind: flKind, text: fl(`privacy: {clipNorm: 1, noiseMultiplier: -1}`), words: []string{"spec.privacy.noiseMultiplier"}},
		"fl, median of what nobody sees": {kind: flKind, text: fl(`aggregation: {name: Median}, privacy: {secureAggregation: true}`), words: []string{"spec", "privacy.secureAggregation"}},
		"fl, name in upper case":         {kind: flKind, name: "Fl", text: fl(""), words: []string{"metadata.name"}},
	}
}

// templateDocuments are about the parts of Kubernetes' own types.
func templateDocuments() map[string]document {
	const feKind, vaKind, reidKind, objsKind, objtKind = "FeatureExtractionService", "VideoAnalyticsJob", "ReidJob", "ObjectSearchService", "ObjectTrackingService"
	fe := func(template string) string { return `spec: {model: {name: m}, template: ` + template + `}` }
	pod := func(more string) string { return fe(`{spec: {containers: [{name: w, image: i}], ` + more + `}}`) }
	container := func(c string) string { return fe(`{spec: {containers: [{` + c + `}]}}`) }
	// at is where the template's parts are, in the refusals.
	at := func(path string, words ...string) []string { return append(words, "spec.template."+path) }
	hpa := func(text string) string {
		return ji(`nodeName: e`, `hpa: {`+text+`}, template: {spec: {containers: [{name: w, image: i}]}}`)
	}
	const jiKind = "JointInferenceService"
	return map[string]document{
		"template":                         {kind: feKind, text: container(`name: w, image: i`)},
		"template, much":                   {kind: feKind, text: `spec: {model: {name: m}, kafkaSupport: true, replicas: 2, paused: false, minReadySeconds: 1, revisionHistoryLimit: 3, progressDeadlineSeconds: 60, strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%}}, selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}, template: {metadata: {name: x, labels: {a: b}, annotations: {c: d}, creationTimestamp: null}, spec: {initContainers: [{name: i, image: j}], containers: [{name: w, image: i, env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}], envFrom: [{configMapRef: {name: c}}], livenessProbe: {httpGet: {path: /, port: web}}, securityContext: {privileged: true}, resources: {limits: {cpu: 6, memory: 2Gi}}, ports: [{containerPort: 80, name: web, protocol: TCP}]}], tolerations: [{operator: Exists}], affinity: {nodeAffinity: {}}, imagePullSecrets: [{name: p}], volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]}}}`},
		"template, process":                {kind: feKind, text: fe(`{metadata: {annotations: {sedna.io/runtime: process}}, spec: {containers: [{name: w, command: [/opt/w]}]}}`)},
		"template, arguments alone":        {kind: feKind, text: container(`name: w, args: [/opt/w]`)},
		"template missing":                 {kind: feKind, text: `spec: {model: {name: m}}`, words: []string{"spec.template", "Required"}},
		"template, empty":                  {kind: feKind, text: fe(`{}`), words: at("spec", "Required")},
		"template is a list":               {kind: feKind, text: fe(`[]`), words: []string{"spec.template", "object"}},
		"template, no containers":          {kind: feKind, text: fe(`{spec: {nodeName: a}}`), words: at("spec.containers", "Required")},
		"template, empty containers":       {kind: feKind, text: fe(`{spec: {containers: []}}`), words: at("spec.containers", "1 items")},
		"template, container has no name":  {kind: feKind, text: container(`image: i`), words: at("spec.containers[0].name", "Required")},
		"template, container has no image": {kind: feKind, text: container(`name: w`), words: at("spec.containers[0].image", "Required")},
		"template, typing error":           {kind: feKind, text: container(`name: w, imagee: i`), words: at("spec.containers[0].imagee", "unknown field")},
		"template, typing error in spec":   {kind: feKind, text: pod(`nodename: a`), words: at("spec.nodename", "unknown field")},
		"template, typing error beside":    {kind: feKind, text: fe(`{sepc: {}, spec: {containers: [{name: w, image: i}]}}`), words: at("sepc", "unknown field")},
		"template, port is text":           {kind: feKind, text: container(`name: w, image: i, ports: [{containerPort: "80"}]`), words: at("spec.containers[0].ports[0].containerPort", "integer")},
		"template, port 0":                 {kind: feKind, text: container(`name: w, image: i, ports: [{containerPort: 0}]`), words: at("spec.containers[0].ports[0].containerPort", "1")},
		"template, port 65536":             {kind: feKind, text: container(`name: w, image: i, ports: [{containerPort: 65536}]`), words: at("spec.containers[0].ports[0].containerPort", "65535")},
		"template, port missing":           {kind: feKind, text: container(`name: w, image: i, ports: [{name: a}]`), words: at("spec.containers[0].ports[0].containerPort", "Required")},
		"template, env has no name":        {kind: feKind, text: container(`name: w, image: i, env: [{value: a}]`), words: at("spec.containers[0].env[0].name", "Required")},
		"template, env is a number":        {kind: feKind, text: container(`name: w, image: i, env: [{name: a, value: 1}]`), words: at("spec.containers[0].env[0].value", "string")},
		"template, env is a list":          {kind: feKind, text: container(`name: w, image: i, env: [{name: a, value: [1, 2]}]`), words: at("spec.containers[0].env[0].value", "string")},
		"template, command is text":        {kind: feKind, text: container(`name: w, image: i, command: run`), words: at("spec.containers[0].command", "array")},
		"template, mount without a path":   {kind: feKind, text: container(`name: w, image: i, volumeMounts: [{name: a}]`), words: at("spec.containers[0].volumeMounts[0].mountPath", "Required")},
		"template, nodeName is a number":   {kind: feKind, text: pod(`nodeName: 5`), words: at("spec.nodeName", "string")},
		"template, selector is a number":   {kind: feKind, text: pod(`nodeSelector: {a: 5}`), words: at("spec.nodeSelector.a", "string")},
		"template, hostNetwork is text":    {kind: feKind, text: pod(`hostNetwork: "yes"`), words: at("spec.hostNetwork", "boolean")},
		"template, volume has no name":     {kind: feKind, text: pod(`volumes: [{emptyDir: {}}]`), words: at("spec.volumes[0].name", "Required")},
		"template, label is a number":      {kind: feKind, text: fe(`{metadata: {labels: {a: 1}}, spec: {containers: [{name: w, image: i}]}}`), words: at("metadata.labels.a", "string")},
		"template, init container":         {kind: feKind, text: pod(`initContainers: [{image: i}]`), words: at("spec.initContainers[0].name", "Required")},

		"fe, no model":          {kind: feKind, text: `spec: {` + worker + `}`, words: []string{"spec.model", "Required"}},
		"fe, negative replicas": {kind: feKind, text: `spec: {model: {name: m}, replicas: -1, ` + worker + `}`, words: []string{"spec.replicas", "0"}},
		"fe, too many replicas": {kind: feKind, text: `spec: {model: {name: m}, replicas: 3000000000, ` + worker + `}`, words: []string{"spec.replicas"}},
		"fe, unknown field":     {kind: feKind, text: `spec: {model: {name: m}, replica: 1, ` + worker + `}`, words: []string{"spec.replica"}},
		"va":                    {kind: vaKind, text: `spec: {model: {name: m}, backoffLimit: 5, completionMode: NonIndexed, ttlSecondsAfterFinished: 5, podFailurePolicy: {rules: []}, ` + worker + `}`},
		"va, no model":          {kind: vaKind, text: `spec: {` + worker + `}`, words: []string{"spec.model", "Required"}},
		"va, backoffLimit":      {kind: vaKind, text: `spec: {model: {name: m}, backoffLimit: many, ` + worker + `}`, words: []string{"spec.backoffLimit", "integer"}},
		"va, name with a dot":   {kind: vaKind, name: "a.b", text: `spec: {model: {name: m}, ` + worker + `}`, words: []string{"metadata.name"}},
		"reid":                  {kind: reidKind, text: `spec: {kafkaSupport: true, ` + worker + `}`},
		"reid, kafkaSupport":    {kind: reidKind, text: `spec: {kafkaSupport: "true", ` + worker + `}`, words: []string{"spec.kafkaSupport", "boolean"}},
		"objs":                  {kind: objsKind, text: `spec: {userWorker: {` + worker + `}, trackingWorkers: [{` + worker + `}], reidWorkers: {replicas: 5, selector: {matchLabels: {a: b}}, ` + worker + `}}`},
		"objs, no user worker":  {kind: objsKind, text: `spec: {trackingWorkers: [], reidWorkers: {` + worker + `}}`, words: []string{"spec.userWorker", "Required"}},
		"objt":                  {kind: objtKind, text: `spec: {trackingWorkers: [{` + worker + `}], reidWorkers: {` + worker + `}}`},
		"objt, no reid workers": {kind: objtKind, text: `spec: {trackingWorkers: [{` + worker + `}]}`, words: []string{"spec.reidWorkers", "Required"}},
		"objt, env is a list":   {kind: objtKind, text: `spec: {trackingWorkers: [{template: {spec: {containers: [{name: w, image: i, env: [{name: s, value: [a]}]}]}}}], reidWorkers: {` + worker + `}}`, words: []string{"spec.trackingWorkers[0].template.spec.containers[0].env[0].value", "string"}},

		"hpa":                     {kind: jiKind, text: hpa(`minReplicas: 1, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu}}], behavior: {scaleDown: {stabilizationWindowSeconds: 5}}`)},
		"hpa, null":               {kind: jiKind, text: ji(`nodeName: e, hpa: null`, "")},
		"hpa, no limit":           {kind: jiKind, text: hpa(`minReplicas: 1`), words: []string{"spec.cloudWorker.hpa.maxReplicas", "Required"}},
		"hpa, none":               {kind: jiKind, text: hpa(`maxReplicas: 0`), words: []string{"spec.cloudWorker.hpa.maxReplicas"}},
		"hpa, min above max":      {kind: jiKind, text: hpa(`minReplicas: 3, maxReplicas: 2`), words: []string{"spec.cloudWorker.hpa", "minReplicas: expected at most maxReplicas"}},
		"hpa, metric has no type": {kind: jiKind, text: hpa(`maxReplicas: 2, metrics: [{}]`), words: []string{"spec.cloudWorker.hpa.metrics[0].type", "Required"}},
		"ji, affinity":            {kind: jiKind, text: ji("template: {spec: {affinity: {nodeAffinity: {}}, containers: [{name: w, image: i}]}}", "")},
		"ji, rule as plugin":      {kind: jiKind, text: ji(`nodeName: e, hardExampleMining: {name: mine, parameters: [{key: a, value: b}], plugin: {url: "https://rule:8000"}}`, "")},
	}
}
