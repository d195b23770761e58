// Package broker is the embedded MQTT broker for nodes that have none: no
// edgecore and no mosquitto. It keeps retained messages and sessions in
// memory; whoever owns retained state publishes it again when it connects.
package broker
