// Package enrol is the GlobalManager's door for new nodes: POST /v1/enrol gives
// a certificate and the keys to pin for a one-time token, POST /v1/enrol/renew
// gives new ones for the certificate. In come JSON bodies of at most 64 KiB;
// out goes an identity.Grant, or a wire.Error counted at the door "enrol".
package enrol
