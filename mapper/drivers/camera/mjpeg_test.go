package camera

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestMJPEGForms(t *testing.T) {
	a, b := "\xff\xd8line\r\n--not it\nrest\xff\xd9", "\xff\xd8b\xff\xd9"
	with := func(boundary, head string) string {
		part := func(body string) string {
			return boundary + "\r\nContent-Type: image/jpeg\r\n" + strings.ReplaceAll(head, "N", fmt.Sprint(len(body))) + "\r\n" + body + "\r\n"
		}
		return part(a) + part(b)
	}
	for name, c := range map[string]struct{ boundary, stream string }{
		"with lengths":         {"x", with("--x", "Content-Length: N\r\n")},
		"without lengths":      {"x", with("--x", "") + "--x--\r\n"},
		"dashes in the header": {"--x", with("--x", "content-length:N\r\n")},
		"no boundary named":    {"", with("--whatever", "Content-length: N\r\n")},
		"empty line before":    {"x", "\r\n" + with("--x", "")},
		"text before":          {"x", "preamble\r\n" + with("--x", "Content-Length: N\r\n")},
		"type with parameters": {"x", strings.ReplaceAll(with("--x", ""), "image/jpeg", "image/jpeg; q=1")},
		"lengths and final":    {"x", with("--x", "Content-Length: N\r\n") + "--x--\r\n"},
		"space after boundary": {"x", strings.ReplaceAll(with("--x", "Content-Length: N\r\n"), "--x\r\n", "--x \r\n")},
		"bare line feeds":      {"x", "--x\nContent-Type: image/jpeg\n\n" + a + "\n--x\nContent-Type: image/jpeg\n\n" + b + "\n--x--\n"},
	} {
		m := newMJPEGReader(strings.NewReader(c.stream), c.boundary, 100)
		var got []string
		var err error
		for {
			var f []byte
			if f, err = m.next(); err != nil {
				break
			}
			got = append(got, string(f))
		}
		// Without a length and a final boundary the last frame cannot be told
		// from one that is cut.
		want := []string{a, b}
		if !strings.Contains(strings.ToLower(c.stream), "length") && !strings.Contains(c.stream, "--x--") {
			want = want[:1]
		}
		if !errors.Is(err, io.EOF) || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestMJPEGRefusals(t *testing.T) {
	for name, stream := range map[string]string{
		"large":        "--x\r\nContent-Length: 101\r\n\r\n" + strings.Repeat("a", 101),
		"large, open":  "--x\r\n\r\n" + strings.Repeat("a", 1<<20),
		"cut":          "--x\r\nContent-Length: 10\r\n\r\nabc",
		"bad length":   "--x\r\nContent-Length: -1\r\n\r\n",
		"other type":   "--x\r\nContent-Type: text/html\r\n\r\n",
		"many headers": "--x\r\n" + strings.Repeat("A: b\r\n", 100),
		"long header":  "--x\r\nA: " + strings.Repeat("b", 64<<10) + "\r\n\r\n",
		"no boundary":  strings.Repeat("text\r\n", 64<<10),
	} {
		if f, err := newMJPEGReader(strings.NewReader(stream), "x", 100).next(); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %q, %v", name, f, err)
		}
	}
}

func FuzzMJPEG(f *testing.F) {
	f.Add([]byte("--x\r\nContent-Length: 3\r\n\r\nabc\r\n--x--"), "x")
	f.Add([]byte("--x\r\n\r\nabc\n--x\n\nb\n--x--\n"), "")
	f.Fuzz(func(t *testing.T, stream []byte, boundary string) {
		m := newMJPEGReader(bytes.NewReader(stream), boundary, 1000)
		total := 0
		for {
			b, err := m.next()
			if err != nil {
				return
			}
			if len(b) > 1002 {
				t.Fatalf("frame of %d bytes", len(b))
			}
			if total += len(b); total > len(stream) {
				t.Fatal("more came out than went in")
			}
		}
	})
}

// The example of RFC 7616 §3.9.1, whose cnonce we cannot choose; without qop
// the answer is determined.
func TestDigest(t *testing.T) {
	c := []string{"Basic realm=x", `Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`}
	got, ok := digest(c, "GET", "/dir/index.html", "Mufasa", "Circle Of Life")
	if !ok || !strings.Contains(got, `response="670fd8c2df070c60b045671b8b24ff02"`) || !strings.Contains(got, `opaque="5ccc`) {
		t.Error(got)
	}
	for _, c := range []string{"", "Basic", `Digest realm="x"`, `Digest nonce="x", qop="auth-int"`, `Digest nonce="x", algorithm=MD4`, `Digest nonce`} {
		if got, ok := digest([]string{c}, "GET", "/", "u", "p"); ok {
			t.Errorf("%q: %s", c, got)
		}
	}
}
