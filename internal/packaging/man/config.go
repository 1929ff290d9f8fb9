package main

import (
	"fmt"
	"regexp"
	"strings"
)

// key is a line of config.yml that sets a key or begins a group of keys.
var key = regexp.MustCompile(`^(  )?([a-z_]+):(?: +(.*))?$`)

// configPage is clouddragon.yml(5). Each comment of config.yml describes the keys
// that follow it, up to an empty line or the next comment. One that no key follows is a
// paragraph of its own.
func configPage(text, date, source string) (string, error) {
	p := newPage("clouddragon.yml", 5, date, source)
	p.name("the configuration of clouddragon(1)")
	p.section("DESCRIPTION")
	var comment []string
	var keys []item
	group, listed := "", false
	flush := func() {
		said := strings.Join(comment, "\n")
		switch {
		case len(keys) > 0:
			if !listed {
				p.section("KEYS")
				listed = true
			}
			keys[len(keys)-1].text = said
			p.items(keys)
		case said != "":
			if listed {
				p.macro("PP")
			}
			p.paragraphs(said)
		}
		comment, keys = nil, nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if said, ok := strings.CutPrefix(strings.TrimSpace(line), "#"); ok {
			if len(keys) > 0 {
				flush()
			}
			comment = append(comment, strings.TrimPrefix(said, " "))
			continue
		}
		m := key.FindStringSubmatch(line)
		switch {
		case line == "":
			flush()
		case m == nil:
			return "", fmt.Errorf("config.yml: neither a comment nor a key: %s", line)
		case m[1] == "" && m[3] == "":
			group = m[2] + "."
		case m[1] == "":
			group = ""
			keys = append(keys, item{term: m[2] + ": " + m[3]})
		default:
			keys = append(keys, item{term: group + m[2] + ": " + m[3]})
		}
	}
	flush()
	p.section("NOTES")
	p.line(escape("A key a.b stands as b under a:"))
	p.example("limits:\n  value: 8MiB")
	p.section("FILES")
	p.line(bold("/etc/clouddragon/config.yml"))
	p.seeAlso("clouddragon(1)")
	return p.String(), nil
}
