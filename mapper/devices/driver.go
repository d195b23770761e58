package devices

import (
	"context"
	"log/slog"
	"time"
)

// Driver is the connection to one device. The engine calls its methods one at
// a time, from one goroutine, and shields itself from panics in them. A method
// that can block ends, with an error, soon after its ctx has; goroutines that
// a driver starts end before Close returns.
type Driver interface {
	// Connect makes the device ready to be read and written. It is called
	// first, and again after each error of Read or Write; it drops whatever an
	// earlier call has left. An error means that the device is offline: it is
	// called again with back-off.
	Connect(ctx context.Context) error
	// Read gives readings of the named properties, asked for together because
	// they are due together. A property that is missing in the answer has no
	// news. What is wrong with one property is said in its Reading; an error
	// means that the device is offline. With no names it only tells whether
	// the device is there; that has to be cheap.
	Read(ctx context.Context, properties []string) (map[string]Reading, error)
	// Write sets a property to a value of its Kind. It is not repeated after
	// success, so it returns when the device has taken the value. A *wire.Error
	// with code invalid_argument, too_large, permission_denied or unimplemented
	// means that the device will never take this value; any other error means
	// that the device is offline, and the value is written after the next
	// Connect.
	Write(ctx context.Context, property string, value any) error
	// Close releases everything. It is called once, also without Connect;
	// nothing is called afterwards.
	Close() error
}

// Factory makes the driver of one device. It checks the configuration, does no
// input or output, and starts nothing. Its errors name the field.
type Factory func(Setup) (Driver, error)

// Setup is what a driver is told of its device.
type Setup struct {
	Node, Namespace, Name string

	Protocol   Settings   // protocol.configData
	Properties []Property // those with visitors

	// Emit hands in readings that the device has sent of itself. It may be
	// called from any goroutine from Connect to the end of Close, never
	// blocks, and of each property keeps the newest.
	Emit func(property string, r Reading)
	// Wake has Read called soon, for a driver that has noticed a failure.
	Wake func()

	Log *slog.Logger
}

// Property is one property that a driver has to serve.
type Property struct {
	Name     string
	Kind     Kind // of the values that Write gets; readings may be of any kind that converts without loss
	Writable bool
	Visitor  Settings // visitors.configData
}

// Reading is one value of a property, or what is wrong with it.
type Reading struct {
	// Value is a bool, string, json.Number, []byte, or any integer or float
	// type.
	Value any
	Err   error     // of this property alone
	Time  time.Time // zero: now
}
