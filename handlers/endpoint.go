package handlers

import (
	"net/http"
	"strings"
)

// readsBody reports whether the call reads its body itself. The body of any other call
// may hold parameters.
func (e *endpoint) readsBody() bool {
	return e.takesValue() || e.api == Batch || e.api == Replica || e.api == MoveData && e.method == http.MethodPost || e.api == TFState && e.method != http.MethodDelete && e.method != http.MethodGet
}

// takesValue reports whether the body is a value.
func (e *endpoint) takesValue() bool {
	return e.api == KV && (e.method == http.MethodPost || e.method == http.MethodPut)
}

// find returns the endpoint for a method, or nil.
func find(api API, method string) *endpoint {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i := range endpoints {
		if e := &endpoints[i]; e.api == api && e.method == method {
			return e
		}
	}
	return nil
}

// allowed lists the methods of an API for the header Allow.
func allowed(api API) string {
	var methods []string
	for _, e := range endpoints {
		if e.api == api {
			methods = append(methods, e.method)
			if e.method == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
		}
	}
	return strings.Join(methods, ", ")
}
