// Package devices runs the sensors, actuators and cameras of a node. It is the
// dmi.Handler of every protocol that has a Driver: each device has a goroutine
// that connects, reads its properties in their cycles, checks the values
// against the DeviceModel, publishes them on the bus, pushes them where the
// Device says, writes desired values once, and reports to the cloud within the
// node's budget. A device that fails is tried again with back-off, alone.
package devices
