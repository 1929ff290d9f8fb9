package handlers

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// Token gives access to every client that sends it.
type Token struct {
	Token    string
	Accounts []string // the accounts it is valid for; none: all
	ReadOnly bool     // valid for GET and HEAD only
}

// grant is a Token with its hash. The time that comparing hashes takes reveals neither how
// much of a token was right nor how long the token is.
type grant struct {
	sum [sha256.Size]byte
	Token
}

// Tokens are the tokens in force. With the zero value no token is needed.
type Tokens struct{ grants atomic.Pointer[[]grant] }

// NewTokens returns tokens to begin with.
func NewTokens(tokens ...Token) *Tokens {
	t := new(Tokens)
	t.Set(tokens)
	return t
}

// Set replaces the tokens for all later requests. It may be called while requests are
// served.
func (t *Tokens) Set(tokens []Token) {
	var g []grant
	for _, x := range tokens {
		g = append(g, grant{sha256.Sum256([]byte(x.Token)), x})
	}
	t.grants.Store(&g)
}

func (t *Tokens) load() []grant {
	if g := t.grants.Load(); g != nil {
		return *g
	}
	return nil
}

// authorize checks the token. It runs before the route is looked up, so that a client
// without a token does not learn which routes exist.
func (s *server) authorize(c *call) error {
	grants := s.tokens.load()
	if len(grants) == 0 || c.api == Page || c.api == Healthz || c.api == OpenAPI {
		return nil
	}
	token := c.token()
	if token == "" {
		return &refusal{http.StatusUnauthorized, "a token is needed: send the header Authorization: Bearer TOKEN, or the token as the password of basic auth"}
	}
	c.buf = append(c.buf[:0], token...)
	sum := sha256.Sum256(c.buf)
	var g *grant
	for i := range grants {
		if subtle.ConstantTimeCompare(sum[:], grants[i].sum[:]) == 1 {
			g = &grants[i]
		}
	}
	switch {
	case g == nil:
		return &refusal{http.StatusUnauthorized, "the token is not known here"}
	case c.inAccount && len(g.Accounts) > 0 && !slices.Contains(g.Accounts, c.key.Acc):
		return &refusal{http.StatusForbidden, fmt.Sprintf("this token is not for account %s", quote(c.key.Acc))}
	case c.api == Accounts && len(g.Accounts) > 0:
		return &refusal{http.StatusForbidden, "this token is not for all accounts, and may not list them"}
	case (c.api == Move || c.api == MoveData) && (len(g.Accounts) > 0 || g.ReadOnly):
		return &refusal{http.StatusForbidden, "moving an account takes full access: this token is bound to accounts, or for reading only"}
	case c.api == Backup && (len(g.Accounts) > 0 || g.ReadOnly):
		return &refusal{http.StatusForbidden, "a backup holds everything: this token is bound to accounts, or for reading only"}
	case c.aboutReplica() && (len(g.Accounts) > 0 || g.ReadOnly):
		return &refusal{http.StatusForbidden, "this call concerns the whole server: this token is bound to accounts, or for reading only"}
	case g.ReadOnly && c.api == Batch:
		c.readOnly = true // checked when its calls are known
	case g.ReadOnly && c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
		return &refusal{http.StatusForbidden, "this token is for reading only"}
	}
	return nil
}

// token returns the token of the request: a bearer token or the password of basic auth,
// or "".
func (c *call) token() string {
	h := c.r.Header["Authorization"]
	if len(h) == 0 {
		return ""
	}
	if scheme, token, _ := strings.Cut(h[0], " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimLeft(token, " ")
	}
	_, password, _ := c.r.BasicAuth()
	return password
}
