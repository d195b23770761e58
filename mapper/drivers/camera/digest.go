package camera

import (
	"crypto/md5" // digest authentication as cameras speak it
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// digest answers a challenge of HTTP digest authentication (RFC 7616: MD5 or
// SHA-256, qop auth or none); ok is false when there is none that it can
// answer.
func digest(challenges []string, method, uri, username, password string) (answer string, ok bool) {
	for _, c := range challenges {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(c), " ")
		if !strings.EqualFold(scheme, "digest") {
			continue
		}
		p := parameters(rest)
		var sum func() hash.Hash
		switch strings.ToUpper(p["algorithm"]) {
		case "", "MD5":
			sum = md5.New
		case "SHA-256":
			sum = sha256.New
		default:
			continue
		}
		qop := ""
		for q := range strings.SplitSeq(p["qop"], ",") {
			if strings.EqualFold(strings.TrimSpace(q), "auth") {
				qop = "auth"
			}
		}
		if p["nonce"] == "" || (p["qop"] != "" && qop == "") || strings.ContainsAny(username+p["realm"]+p["nonce"]+p["opaque"], "\"\\\r\n") {
			continue
		}
		h := func(s string) string {
			x := sum()
			x.Write([]byte(s))
			return hex.EncodeToString(x.Sum(nil))
		}
		ha1, ha2 := h(username+":"+p["realm"]+":"+password), h(method+":"+uri)
		answer = fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s"`, username, p["realm"], p["nonce"], uri)
		if qop == "" {
			answer += fmt.Sprintf(`, response="%s"`, h(ha1+":"+p["nonce"]+":"+ha2))
		} else {
			cnonce := rand.Text()
			answer += fmt.Sprintf(`, qop=auth, nc=00000001, cnonce="%s", response="%s"`, cnonce, h(ha1+":"+p["nonce"]+":00000001:"+cnonce+":auth:"+ha2))
		}
		if p["algorithm"] != "" {
			answer += ", algorithm=" + p["algorithm"]
		}
		if p["opaque"] != "" {
			answer += fmt.Sprintf(`, opaque="%s"`, p["opaque"])
		}
		return answer, true
	}
	return "", false
}

// parameters reads name=value and name="value", with commas between.
func parameters(s string) map[string]string {
	out := map[string]string{}
	for s = strings.TrimLeft(s, " ,\t"); s != ""; s = strings.TrimLeft(s, " ,\t") {
		name, rest, found := strings.Cut(s, "=")
		if !found {
			break
		}
		var value string
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			value, s, _ = strings.Cut(quoted, `"`)
		} else {
			value, s, _ = strings.Cut(rest, ",")
			value = strings.TrimSpace(value)
		}
		out[strings.ToLower(strings.TrimSpace(name))] = value
	}
	return out
}
