// Package task bridges device twins and the MQTT bus for devices of protocol
// sedna. Down: the desired properties of a device become one retained message,
// which is restored when somebody clears or replaces it. Up: what the
// LocalController reports is checked, coalesced per device, sent as a twin
// update within a rate, and sent again until the cloud has acknowledged it in
// the device's nonce.
package task
