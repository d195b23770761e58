// Package client is `sedna infer`: it sends files to a LocalController's local
// HTTP API and prints the answers.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgetwin/sedna/models/wire"
)

const (
	maxFile   = 64 << 20 // bytes of one file
	maxAnswer = 64 << 20 // bytes of one answer
	timeout   = time.Minute
)

// target is the LocalController to ask.
type target struct {
	url     string
	token   string
	dataDir string
	node    string
}

// Command gives `sedna infer`.
func Command() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "infer SERVICE FILE…",
		Short: "Ask a service on this machine: images (.png, .jpg) or Open Inference Protocol requests (.json)",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.find(); err != nil {
				return err
			}
			var errs []error
			for _, file := range args[1:] {
				answer, err := t.ask(cmd.Context(), args[0], file)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", file, err))
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", answer)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().StringVar(&t.url, "url", "", "`URL` of the LocalController (default: as the data directory says, else http://127.0.0.1:9100)")
	cmd.Flags().StringVar(&t.token, "token", "", "its token, where it has one")
	cmd.Flags().StringVar(&t.dataDir, "data-dir", "./.sedna", "data `directory` of sedna up or join on this machine")
	cmd.Flags().StringVar(&t.node, "node", "", "`name` of the node to ask (default: the first)")
	return cmd
}

// find fills in the URL from endpoints.json.
func (t *target) find() error {
	if t.url != "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(t.dataDir, "endpoints.json"))
	if errors.Is(err, os.ErrNotExist) && t.node == "" {
		t.url = "http://127.0.0.1:9100"
		return nil
	}
	if err != nil {
		return err
	}
	var e struct {
		Nodes []struct{ Name, HTTP, Token string } `json:"nodes"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("endpoints.json: %w", err)
	}
	for _, n := range e.Nodes {
		if t.node == "" || n.Name == t.node {
			t.url = n.HTTP
			if t.token == "" {
				t.token = n.Token
			}
			return nil
		}
	}
	return fmt.Errorf("endpoints.json names no node %q", t.node)
}

// ask sends one file and gives the answer's JSON on one line.
func (t *target) ask(ctx context.Context, service, file string) ([]byte, error) {
	path, contentType := "/v2/models/"+url.PathEscape(service)+"/infer", "application/json"
	switch strings.ToLower(filepath.Ext(file)) {
	case ".png":
		path, contentType = "/v1/services/"+url.PathEscape(service)+"/image", "image/png"
	case ".jpg", ".jpeg":
		path, contentType = "/v1/services/"+url.PathEscape(service)+"/image", "image/jpeg"
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are sent", st.Size(), maxFile)
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	if t.token != "" {
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, wire.ParseError(resp.StatusCode, answer)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, answer); err != nil {
		return nil, fmt.Errorf("answer is not JSON: %w", err)
	}
	return line.Bytes(), nil
}
