package v1alpha1

// Types of condition that our kinds carry; one condition of each type.
const (
	// ConditionReady is True when the object does what its manifest asks.
	ConditionReady = "Ready"
)

// Reasons of conditions.
const (
	ReasonServing         = "Serving"         // every node serves
	ReasonProgressing     = "Progressing"     // some node has not confirmed the current generation
	ReasonFailed          = "Failed"          // some node reports Failed
	ReasonModelNotFound   = "ModelNotFound"   // a Model that the manifest names does not exist
	ReasonNodeNotFound    = "NodeNotFound"    // no enrolled node matches
	ReasonNeedsPodRuntime = "NeedsPodRuntime" // a template needs a cluster to run its containers
	ReasonInvalid         = "Invalid"         // the manifest asks for what cannot be
	ReasonStopping        = "Stopping"        // deleted, nodes have yet to confirm
	ReasonAvailable       = "Available"       // a Model's file can be fetched
	ReasonNotStored       = "NotStored"       // a Model's blob is not in the blob store
	ReasonReadByNodes     = "ReadByNodes"     // the nodes read the Model's url themselves, the cloud cannot tell
)

// LocalObjectReference names an object in the same namespace.
type LocalObjectReference struct {
	// Name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Parameter is one parameter of an algorithm; the value is text.
type Parameter struct {
	// Key of the parameter.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Key string `json:"key"`
	// Value of the parameter, quoted: "0.9".
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value"`
}

// Algorithm is an algorithm by name with its parameters. Names are checked
// where Sedna runs it; a worker template's own program takes any name.
type Algorithm struct {
	// Name of the algorithm.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Parameters of the algorithm.
	// +kubebuilder:validation:MaxItems=32
	Parameters []Parameter `json:"parameters,omitempty"`
	// Plugin runs the algorithm out of process, under a name of its own choice.
	Plugin *Plugin `json:"plugin,omitempty"`
}

// Plugin is a program of the user's that runs an algorithm and speaks the Open
// Inference Protocol v2: one that is started, or one that runs already.
//
// +kubebuilder:validation:XValidation:rule="has(self.argv) != has(self.url)",message="expected exactly one of argv and url"
type Plugin struct {
	// Argv is the program that is started, with its arguments.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	Argv []string `json:"argv,omitempty"`
	// URL of a server that runs already, http or https.
	// +kubebuilder:validation:Pattern=`^https?://[^\s]+$`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
}

// Placement says which nodes do the work, where no template does.
type Placement struct {
	// NodeName is the node that does the work.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName,omitempty"`
	// NodeSelector picks nodes by their labels; every matching node does the work.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
}

// Metric is a named value.
type Metric struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}
