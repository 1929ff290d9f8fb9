package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// help is what a command prints with -help.
type help struct {
	usage      []item
	paragraphs []string
	lists      []list
}

// list is a block such as
//
//	exit codes: the command's own, or
//	  64  a bad flag
//	  69  no answer
type list struct {
	title, lead string
	items       []item
}

// sections are the blocks of a help, and their names on a manual page.
var sections = map[string]string{
	"flags":       "OPTIONS",
	"environment": "ENVIRONMENT",
	"signals":     "SIGNALS",
	"exit codes":  "EXIT STATUS",
}

func helpOf(binary string, command ...string) (help, error) {
	text, err := exec.Command(binary, append(command, "-help")...).Output()
	if err != nil {
		return help{}, fmt.Errorf("%s %v -help: %w", binary, command, err)
	}
	h, err := parseHelp(string(text))
	if err != nil {
		return help{}, fmt.Errorf("%s %v -help: %w", binary, command, err)
	}
	return h, nil
}

var (
	gap  = regexp.MustCompile(`\s{2,}`)
	head = regexp.MustCompile(`^([a-z ]+):(?: (.*))?$`)
)

func parseHelp(text string) (h help, err error) {
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		lines := strings.Split(block, "\n")
		if usage, ok := strings.CutPrefix(lines[0], "usage: "); ok {
			lines[0] = usage
			for _, line := range lines {
				h.usage = append(h.usage, split(line))
			}
			continue
		}
		m := head.FindStringSubmatch(lines[0])
		if m == nil || len(lines) > 1 && !strings.HasPrefix(lines[1], "  ") {
			h.paragraphs = append(h.paragraphs, block)
			continue
		}
		if sections[m[1]] == "" {
			return h, fmt.Errorf("a block is called %q, which no section of a manual page is for", m[1])
		}
		l := list{title: sections[m[1]], lead: m[2]}
		for _, line := range lines[1:] {
			if more, ok := strings.CutPrefix(line, "    "); ok && len(l.items) > 0 {
				l.items[len(l.items)-1].text += "\n" + strings.TrimSpace(more)
				continue
			}
			l.items = append(l.items, split(line))
		}
		h.lists = append(h.lists, l)
	}
	if len(h.usage) == 0 {
		return h, fmt.Errorf("it has no usage")
	}
	return h, nil
}

// split splits a line where a term and its text are two spaces or more apart.
func split(line string) item {
	parts := gap.Split(strings.TrimSpace(line), 2)
	return item{parts[0], strings.Join(parts[1:], " ")}
}

// help writes all of a help but its usage, each list under a heading.
func (p *page) help(h help, heading func(string)) {
	for i, text := range h.paragraphs {
		if i > 0 {
			p.macro("PP")
		}
		p.paragraphs(text)
	}
	for _, l := range h.lists {
		heading(l.title)
		if l.lead != "" {
			p.line(escape(l.lead))
		}
		if len(l.items) == 1 && l.items[0].text == "" {
			p.line(escape(l.items[0].term)) // none
			continue
		}
		p.items(l.items)
	}
}
