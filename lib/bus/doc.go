// Package bus is the MQTT 3.1.1 client of the mapper and the LocalController:
// publish, subscribe and know whether the broker is there. In come messages of
// subscriptions, which are made again after every reconnect; out go messages
// that the broker has acknowledged. Nothing is queued while the broker is
// away: who publishes state publishes the newest again from OnConnect.
package bus
