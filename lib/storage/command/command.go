// Package command is `sedna storage-init`, which runs as a worker's init
// container: it brings what URLs name to local directories before the worker
// starts.
package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/storage"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// Variables of the environment besides those of package s3.
const (
	envMark       = "INDIRECT_URL_MARK" // what begins the DST of an index; default @
	envDataPrefix = "DATA_PATH_PREFIX"  // the root of files; default /home/data
	headersSuffix = "-headers"          // <host>-headers: JSON object of headers for http requests to the host
)

// tellEvery is the time between two lines about a transfer that takes long.
const tellEvery = 10 * time.Second

// job is what one call of the command does.
type job struct {
	pairs    []pair
	config   storage.Config
	noUnpack bool
}

type pair struct {
	url, dst string
	indexed  bool
}

// New makes the command for an environment in the form of os.Environ. What is
// wrong with arguments or environment is an error of the command's Args.
func New(environ []string) *cobra.Command {
	var j job
	cmd := &cobra.Command{
		Use:   "storage-init SRC DST [SRC DST]…",
		Short: "Bring what URLs name to local directories, as an init container of a worker",
		Long: `Bring what each SRC names into the directory DST. SRC is a URL of scheme s3, http,
https or file, or an absolute path; with #sha256=HEX at its end the bytes are
checked. Archives (tar, tar.gz, tar.bz2, zip) are unpacked. A DST with @ before
it makes SRC an index: a text file whose first line is a URL, and whose other
lines are names relative to it, which are fetched.

Environment: S3_ENDPOINT_URL, S3_USE_HTTPS (0 or 1, for an endpoint without
scheme), S3_REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY; INDIRECT_URL_MARK in place
of @; DATA_PATH_PREFIX, the directory of local files; HOST-headers, a JSON object
of headers for requests to HOST.`,
		DisableFlagsInUseLine: true,
		Args:                  func(_ *cobra.Command, args []string) error { return j.prepare(args, lookup(environ)) },
		RunE:                  func(cmd *cobra.Command, _ []string) error { return j.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&j.config.Roots, "root", nil, "`directory` below which local files are read, can be repeated (default $DATA_PATH_PREFIX or /home/data)")
	f.Int64Var(&j.config.Limits.Bytes, "max-bytes", 16<<30, "`bytes` that one SRC may bring, and its archives may unpack to")
	f.IntVar(&j.config.Limits.Files, "max-files", 100_000, "`number` of files that one SRC may bring")
	f.Int64Var(&j.config.Ratio, "max-ratio", 250, "how many `times` larger than the archive its files may be")
	f.DurationVar(&j.config.Limits.Time, "time-limit", 2*time.Hour, "how long one SRC may take")
	f.BoolVar(&j.config.Transfer.OtherHosts, "other-hosts", false, "follow redirects to other hosts without a digest too")
	f.BoolVar(&j.noUnpack, "no-unpack", false, "leave archives as they are")
	return cmd
}

func lookup(environ []string) func(string) string {
	vars := map[string]string{}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	return func(name string) string { return vars[name] }
}

// prepare checks all that can be checked before something is fetched.
func (j *job) prepare(args []string, getenv func(string) string) (err error) {
	if len(args) == 0 || len(args)%2 != 0 {
		return wire.E(wire.InvalidArgument, "args", fmt.Sprintf("expected SRC DST, or several such pairs, got %d arguments", len(args)), "")
	}
	mark := cmp.Or(getenv(envMark), "@")
	for i := 0; i < len(args); i += 2 {
		p := pair{url: args[i], dst: args[i+1]}
		p.dst, p.indexed = strings.CutPrefix(p.dst, mark)
		if p.dst == "" {
			return wire.E(wire.InvalidArgument, "args", fmt.Sprintf("expected a directory for %s", storage.Redact(p.url)), "")
		}
		if err := storage.Check(p.url); err != nil {
			return err
		}
		j.pairs = append(j.pairs, p)
	}
	if len(j.config.Roots) == 0 {
		j.config.Roots = []string{cmp.Or(getenv(envDataPrefix), "/home/data")}
	}
	if l := j.config.Limits; l.Bytes <= 0 || l.Files <= 0 || l.Time <= 0 || j.config.Ratio <= 0 {
		return wire.E(wire.InvalidArgument, "flags", "expected limits above 0", "")
	}
	if j.config.S3, err = s3.FromEnv(getenv); err != nil {
		return err
	}
	if _, err := s3.New(j.config.S3); err != nil {
		return err
	}
	j.config.Header = func(host string) (http.Header, error) { return headers(host, getenv(host+headersSuffix)) }
	_, err = storage.New(j.config)
	return err
}

// headers reads the variable with the headers for a host.
func headers(host, text string) (http.Header, error) {
	if text == "" {
		return nil, nil
	}
	var named map[string]string
	if err := json.Unmarshal([]byte(text), &named); err != nil {
		return nil, wire.E(wire.InvalidArgument, host+headersSuffix, "expected a JSON object of strings", "")
	}
	h := http.Header{}
	for name, value := range named {
		h.Set(name, value)
	}
	return h, nil
}

func (j *job) run(ctx context.Context, out io.Writer) error {
	client, err := storage.New(j.config)
	if err != nil {
		return err
	}
	for i, p := range j.pairs {
		name := storage.Redact(p.url)
		get := client.GetDir
		if p.indexed {
			get, name = client.GetIndexed, "index "+name
		}
		begun := time.Now()
		r, err := get(ctx, p.url, p.dst, storage.Options{Unpack: !j.noUnpack, Progress: teller(out, name)})
		if err != nil {
			if hint := wire.AsError(err).Hint; hint != "" {
				err = fmt.Errorf("%w (%s)", err, hint)
			}
			return fmt.Errorf("source %d of %d, %s to %s: %w", i+1, len(j.pairs), name, p.dst, err)
		}
		fmt.Fprintf(out, "%s to %s: %d objects, %d files, %s in %.1f s\n", name, p.dst, r.Objects, r.Files, megabytes(r.Bytes), time.Since(begun).Seconds())
	}
	return nil
}

// teller prints now and then how far a transfer is.
func teller(out io.Writer, name string) blob.Progress {
	next := time.Now().Add(tellEvery)
	return func(done, total int64) {
		if time.Now().Before(next) {
			return
		}
		next = time.Now().Add(tellEvery)
		of := ""
		if total > 0 {
			of = " of " + megabytes(total)
		}
		fmt.Fprintf(out, "%s: %s%s\n", name, megabytes(done), of)
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
