package handlers

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
)

type object = map[string]any

// This endpoint describes the table of endpoints. It is added here, because in the table
// it would be an initialization cycle.
func init() {
	endpoints = append(endpoints, endpoint{api: OpenAPI, method: "GET", serve: getOpenAPI})
}

// GET /openapi.json
func getOpenAPI(_ *server, c *call) error {
	b, err := openAPI()
	if err != nil {
		return err
	}
	c.status, c.ctype, c.body = http.StatusOK, applicationJSON, b
	return nil
}

// openAPI is the description of the table of endpoints. The first call makes it.
var openAPI = sync.OnceValues(func() ([]byte, error) {
	paths := object{}
	for i := range endpoints {
		e := &endpoints[i]
		for _, p := range e.paths("{acc}", "{id}") {
			if paths[p] == nil {
				paths[p] = object{}
			}
			if at := paths[p].(object); hasOperation(e.method) {
				at[strings.ToLower(e.method)] = e.operation(p)
			}
		}
	}
	doc := object{
		"openapi":  "3.0.3",
		"info":     object{"title": "Cloud Dragon", "version": "0.2.0", "description": "Sequences, counters, values, locks and rates. docs/api.md tells the rules."},
		"paths":    paths,
		"security": []any{object{"bearer": []any{}}, object{"basic": []any{}}, object{}},
		"components": object{"securitySchemes": object{
			"bearer": object{"type": "http", "scheme": "bearer"},
			"basic":  object{"type": "http", "scheme": "basic"},
		}},
	}
	b, err := json.MarshalIndent(doc, "", " ")
	return append(b, '\n'), err
})

// hasOperation reports whether OpenAPI knows a method.
func hasOperation(method string) bool {
	switch method {
	case "GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE":
		return true
	}
	return false
}

// operation describes an endpoint under one of its paths.
func (e *endpoint) operation(path string) object {
	params := []any{}
	for name, limit := range map[string]int{"acc": 64, "id": 255} {
		if strings.Contains(path, "{"+name+"}") {
			params = append(params, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string", "minLength": 1, "maxLength": limit}})
		}
	}
	for _, name := range e.params {
		schema := object{"type": "string"}
		if kindOf(name) == flag {
			schema = object{"type": "string", "enum": []any{"true", "false"}}
		}
		params = append(params, object{"name": name, "in": "query", "schema": schema})
	}
	responses := object{"default": object{"description": "a refusal: one line that says why"}}
	for status, what := range e.successes() {
		responses[status] = object{"description": what}
	}
	op := object{"parameters": params, "responses": responses}
	if e.takesValue() || e.api == Batch {
		op["requestBody"] = object{"content": object{"*/*": object{"schema": object{"type": "string", "format": "binary"}}}}
	}
	return op
}

// successes returns the statuses other than refusals, and what they mean.
func (e *endpoint) successes() map[string]string {
	if e.method == "DELETE" && e.api != TFState || e.api == MUnlock {
		return map[string]string{"204": "done, also where there was nothing to do"}
	}
	all := map[string]string{"200": "done"}
	value := e.api == KV && e.method == "GET"
	if value {
		all["206"] = "the range of the value that was asked for"
	}
	if value || slices.Contains(e.params, "not") {
		all["304"] = "nothing has changed"
	}
	return all
}
