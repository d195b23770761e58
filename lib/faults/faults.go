//go:build faults

package faults

import (
	"os"
	"slices"
	"strings"
	"time"
)

var (
	off  = strings.Split(os.Getenv(Env), ",")
	skew = parseSkew(os.Getenv(EnvClock))
)

// Off tells whether to go without a remedy.
func Off(remedy string) bool { return slices.Contains(off, remedy) }

// Clock gives t as a wrong clock shows it.
func Clock(t time.Time) time.Time { return t.Add(skew) }

func parseSkew(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(EnvClock + ": " + err.Error())
	}
	return d
}
