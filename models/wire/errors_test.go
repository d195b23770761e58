package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/edgetwin/sedna/models/wire"
)

// declaredCodes reads the constants of type Code from the source, so that one
// that is added without a status fails here.
func declaredCodes(t *testing.T) []wire.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []wire.Code
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Code" {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, wire.Code(text))
		}
		return true
	})
	if len(codes) < 20 {
		t.Fatalf("found only the codes %v", codes)
	}
	return codes
}

func TestEveryCodeHasAStatus(t *testing.T) {
	seen := map[wire.Code]bool{}
	for _, c := range declaredCodes(t) {
		if seen[c] {
			t.Errorf("%s is declared twice", c)
		}
		seen[c] = true
		status := c.Status()
		if status < 400 || status > 599 || http.StatusText(status) == "" {
			t.Errorf("%s has status %d", c, status)
		}
		if (status == http.StatusInternalServerError) != (c == wire.Internal) {
			t.Errorf("%s has status %d, which is only for internal", c, status)
		}
	}
	if s := wire.Code("no such code").Status(); s != http.StatusInternalServerError {
		t.Errorf("unknown code: status %d", s)
	}
}

func TestErrorRoundTrip(t *testing.T) {
	texts := []string{"", "plain", `with "quotes" and \ and <html>`, "two\nlines\tand \x00", "größer als 日本 🐦", strings.Repeat("long ", 4000)}
	for _, code := range declaredCodes(t) {
		for _, text := range texts {
			for _, e := range []*wire.Error{
				wire.E(code, "", text, ""),
				wire.E(code, "inputs[0].shape", text, text),
			} {
				for form, body := range map[string][]byte{"JSON": e.JSON(), "OIP": e.OIP()} {
					if !json.Valid(body) || !utf8.Valid(body) {
						t.Fatalf("%s form is not JSON: %q", form, body)
					}
					if got := wire.ParseError(418, body); *got != *e { // the body's words, whatever the status
						t.Errorf("%s: %+v, want %+v", form, got, e)
					}
				}
			}
		}
	}
}

func TestErrorForms(t *testing.T) {
	e := wire.E(wire.InvalidArgument, "inputs[0].shape", "expected [1,64]", "flatten it")
	for got, want := range map[string]string{
		string(e.JSON()): `{"error":{"code":"invalid_argument","message":"expected [1,64]","field":"inputs[0].shape","hint":"flatten it"}}`,
		string(e.OIP()):  `{"error":"expected [1,64]","code":"invalid_argument","field":"inputs[0].shape","hint":"flatten it"}`,
		e.Error():        `invalid_argument: inputs[0].shape: expected [1,64]`,
		string(wire.E(wire.NotFound, "", "no", "").JSON()): `{"error":{"code":"not_found","message":"no"}}`,
		string(wire.E(wire.NotFound, "", "no", "").OIP()):  `{"error":"no","code":"not_found"}`,
		wire.E(wire.NotFound, "", "no", "").Error():        `not_found: no`,
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestParseForeignErrors(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		body    string
		code    wire.Code
		message string // a part of it
	}{
		"OIP without a code":        {404, `{"error":"no such model"}`, wire.NotFound, "no such model"},
		"nested without a code":     {400, `{"error":{"message":"odd"}}`, wire.InvalidArgument, "odd"},
		"HTML of a proxy":           {502, "<html>Bad Gateway</html>", wire.Unavailable, "Bad Gateway"},
		"empty":                     {503, "", wire.Unavailable, "Service Unavailable"},
		"empty, unknown status":     {599, "", wire.Internal, ""},
		"null":                      {401, "null", wire.Unauthenticated, ""},
		"error is null":             {403, `{"error":null}`, wire.PermissionDenied, ""},
		"error is a number":         {409, `{"error":5}`, wire.Conflict, "5"},
		"error is a list":           {413, `{"error":[1]}`, wire.TooLarge, "[1]"},
		"a list":                    {429, `[1,2]`, wire.ResourceExhausted, "[1,2]"},
		"code of a wrong type":      {504, `{"error":"late","code":7}`, wire.DeadlineExceeded, ""},
		"data after it":             {400, `{"error":"a"}{"error":"b"}`, wire.InvalidArgument, ""},
		"Kubernetes' Status":        {403, `{"kind":"Status","status":"Failure","reason":"Forbidden"}`, wire.PermissionDenied, "Forbidden"},
		"deep":                      {400, strings.Repeat("[", 100_000), wire.InvalidArgument, "["},
		"not UTF-8":                 {500, "\xff\xfe", wire.Internal, ""},
		"a code that we do not use": {400, `{"error":{"code":"theirs","message":"x"}}`, "theirs", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			got := wire.ParseError(c.status, []byte(c.body))
			if got == nil || got.Code != c.code || !strings.Contains(got.Message, c.message) {
				t.Fatalf("%+v, want %s with %q", got, c.code, c.message)
			}
			if len(got.Message) > 300 {
				t.Errorf("%d bytes of message", len(got.Message))
			}
			if !json.Valid(got.JSON()) || !json.Valid(got.OIP()) {
				t.Error("cannot be passed on")
			}
		})
	}
}

func TestAsError(t *testing.T) {
	e := wire.E(wire.Stale, "", "old", "")
	wrapped := fmt.Errorf("task x: %w", e)
	if wire.AsError(wrapped) != e || !wire.IsCode(wrapped, wire.Stale) || wire.IsCode(wrapped, wire.Buried) {
		t.Errorf("%v", wire.AsError(wrapped))
	}
	if joined := errors.Join(errors.New("first"), wrapped); wire.AsError(joined) != e {
		t.Errorf("%v", wire.AsError(joined))
	}
	if got := wire.AsError(errors.New("disk broke")); got.Code != wire.Internal || got.Message != "disk broke" {
		t.Errorf("%+v", got)
	}
	if wire.IsCode(nil, wire.Internal) || wire.IsCode(errors.New("x"), wire.Internal) {
		t.Error("errors without a code have one")
	}
}
