package camera

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"testing"
	"time"
)

// TestMJPEG reads the stream as a browser does: every reader gets the frame
// that is there, then the newest.
func TestMJPEG(t *testing.T) {
	c, err := NewMJPEG()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first := []byte("\xff\xd8first\xff\xd9")
	c.Show(first)
	for range 2 {
		resp, err := http.Get(c.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil || kind != "multipart/x-mixed-replace" {
			t.Fatalf("%s, %v", kind, err)
		}
		parts := multipart.NewReader(resp.Body, params["boundary"])
		want := first
		for i := range 3 {
			p, err := parts.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			// A part ends where the next begins: the next frame is shown first.
			next := append(bytes.Clone(first), byte('0'+i))
			c.Show(next)
			got, err := io.ReadAll(p)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("frame %d is %q, expected %q, %v", i, got, want, err)
			}
			want = next
		}
		c.Show(first)
	}
}

// TestMJPEGCloses has Close end readers, too.
func TestMJPEGCloses(t *testing.T) {
	c, err := NewMJPEG()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(c.URL()) // nothing is shown yet
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, resp.Body)
		close(ended)
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("a reader goes on after Close")
	}
}

// TestRTSPWithoutListener has a camera that nobody listens to end at once.
func TestRTSPWithoutListener(t *testing.T) {
	c, err := NewRTSP("rtsp://127.0.0.1:1/none", 10)
	if err != nil {
		t.Skip(err)
	}
	for range 5 {
		c.Show([]byte("\xff\xd8\xff\xd9"))
	}
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Close does not return")
	}
}
