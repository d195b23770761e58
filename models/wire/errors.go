package wire

import (
	"encoding/json"
	"errors"
	"net/http"
)

// Code names a kind of refusal. Codes are stable: programs may branch on them.
type Code string

// The one table of codes. Each is mapped to an HTTP status by Status.
const (
	InvalidArgument    Code = "invalid_argument"    // a field is missing, malformed or out of range
	Unauthenticated    Code = "unauthenticated"     // no credential, or one that nobody we trust has issued
	PermissionDenied   Code = "permission_denied"   // a good credential that does not cover this
	NotFound           Code = "not_found"           // the named thing does not exist here
	Conflict           Code = "conflict"            // the thing exists with other content
	TooLarge           Code = "too_large"           // over a size or count limit
	UnsupportedMedia   Code = "unsupported_media"   // a content type or format nobody here reads
	DigestMismatch     Code = "digest_mismatch"     // the bytes are not those that were announced
	BadSignature       Code = "bad_signature"       // the signature is missing or does not verify
	WrongNode          Code = "wrong_node"          // addressed to another node
	Stale              Code = "stale"               // older than what is already here
	Buried             Code = "buried"              // its task was deleted; only a new uid can bring it back
	TokenExpired       Code = "token_expired"       // the enrolment token's time is over
	TokenUsed          Code = "token_used"          // the enrolment token was used before
	Revoked            Code = "revoked"             // the credential was withdrawn
	BadModel           Code = "bad_model"           // the model cannot be read, loaded or run
	Quarantined        Code = "quarantined"         // the model was loading at two crashes
	ResourceExhausted  Code = "resource_exhausted"  // a queue, quota or rate limit is full; try later
	DeadlineExceeded   Code = "deadline_exceeded"   // no answer in time
	Unavailable        Code = "unavailable"         // the thing is known but cannot serve now
	FailedPrecondition Code = "failed_precondition" // the state does not allow it
	Unimplemented      Code = "unimplemented"       // a known form that this build does not serve
	Internal           Code = "internal"            // our fault
)

var statuses = map[Code]int{
	InvalidArgument:    http.StatusBadRequest,
	Unauthenticated:    http.StatusUnauthorized,
	PermissionDenied:   http.StatusForbidden,
	NotFound:           http.StatusNotFound,
	Conflict:           http.StatusConflict,
	TooLarge:           http.StatusRequestEntityTooLarge,
	UnsupportedMedia:   http.StatusUnsupportedMediaType,
	DigestMismatch:     http.StatusUnprocessableEntity,
	BadSignature:       http.StatusForbidden,
	WrongNode:          http.StatusForbidden,
	Stale:              http.StatusConflict,
	Buried:             http.StatusGone,
	TokenExpired:       http.StatusForbidden,
	TokenUsed:          http.StatusForbidden,
	Revoked:            http.StatusForbidden,
	BadModel:           http.StatusUnprocessableEntity,
	Quarantined:        http.StatusConflict,
	ResourceExhausted:  http.StatusTooManyRequests,
	DeadlineExceeded:   http.StatusGatewayTimeout,
	Unavailable:        http.StatusServiceUnavailable,
	FailedPrecondition: http.StatusConflict,
	Unimplemented:      http.StatusNotImplemented,
	Internal:           http.StatusInternalServerError,
}

// Status is the HTTP status that goes with c; 500 for a code not in the table.
func (c Code) Status() int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is a refusal as clients see it: what is wrong, where, and what to do.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"` // path of the offending field, e.g. inputs[0].shape
	Hint    string `json:"hint,omitempty"`  // what the caller can do
}

// E makes an Error; field and hint may be empty.
func E(code Code, field, message, hint string) *Error {
	return &Error{Code: code, Field: field, Message: message, Hint: hint}
}

func (e *Error) Error() string {
	s := string(e.Code) + ": "
	if e.Field != "" {
		s += e.Field + ": "
	}
	return s + e.Message
}

// AsError finds the Error in err's chain; any other error becomes Internal
// with its text, so that a front door always has a code to answer with.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Internal, Message: err.Error()}
}

// IsCode tells whether err carries code c.
func IsCode(err error, c Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == c
}

// JSON is the general form: {"error":{"code":…,"message":…}}.
func (e *Error) JSON() []byte {
	return mustJSON(map[string]*Error{"error": e})
}

// OIP is the Open Inference Protocol's form of the same words:
// {"error":"…","code":"…"}.
func (e *Error) OIP() []byte {
	return mustJSON(struct {
		Error string `json:"error"`
		Code  Code   `json:"code"`
		Field string `json:"field,omitempty"`
		Hint  string `json:"hint,omitempty"`
	}{e.Message, e.Code, e.Field, e.Hint})
}

// mustJSON marshals values made of strings, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// ParseError reads either form back; body is what a peer answered with the
// given HTTP status. A body in neither form gives the code nearest to status.
func ParseError(status int, body []byte) *Error {
	var flat struct {
		Error json.RawMessage `json:"error"`
		Code  Code            `json:"code"`
		Field string          `json:"field"`
		Hint  string          `json:"hint"`
	}
	if json.Unmarshal(body, &flat) == nil && len(flat.Error) > 0 {
		var nested Error
		if json.Unmarshal(flat.Error, &nested) == nil && nested.Code != "" {
			return &nested
		}
		var msg string
		if json.Unmarshal(flat.Error, &msg) == nil {
			if flat.Code == "" {
				flat.Code = codeOf(status)
			}
			return &Error{Code: flat.Code, Message: msg, Field: flat.Field, Hint: flat.Hint}
		}
	}
	const shown = 200
	text := string(body)
	if len(text) > shown {
		text = text[:shown]
	}
	return &Error{Code: codeOf(status), Message: http.StatusText(status) + ": " + text}
}

func codeOf(status int) Code {
	switch status {
	case http.StatusBadRequest:
		return InvalidArgument
	case http.StatusUnauthorized:
		return Unauthenticated
	case http.StatusForbidden:
		return PermissionDenied
	case http.StatusNotFound:
		return NotFound
	case http.StatusConflict:
		return Conflict
	case http.StatusRequestEntityTooLarge:
		return TooLarge
	case http.StatusTooManyRequests:
		return ResourceExhausted
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return Unavailable
	case http.StatusGatewayTimeout:
		return DeadlineExceeded
	}
	return Internal
}
