package main

import (
	"fmt"
	"strings"
)

// page is a manual page in the language of man(7).
type page struct {
	strings.Builder
	title string
}

func newPage(title string, section int, date, source string) *page {
	p := &page{title: title}
	fmt.Fprintf(p, ".TH %s %d %s %q %q\n", strings.ToUpper(title), section, date, source, "Cloud Dragon")
	return p
}

var escapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// escape returns text so that man(7) prints it unchanged, even at the start of a line.
func escape(text string) string {
	text = escapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func bold(text string) string { return `\fB` + escape(text) + `\fR` }

func (p *page) macro(name string) { p.WriteString("." + name + "\n") }

// line writes a line that is escaped already.
func (p *page) line(text string) { p.WriteString(text + "\n") }

func (p *page) name(what string) {
	p.section("NAME")
	p.line(p.title + ` \- ` + escape(what))
}

func (p *page) section(title string)    { fmt.Fprintf(p, ".SH %q\n", title) }
func (p *page) subsection(title string) { fmt.Fprintf(p, ".SS %q\n", title) }

// paragraphs writes text in which an empty line ends a paragraph. Lines that are
// indented are an example.
func (p *page) paragraphs(text string) {
	example := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, "  "); indented != example && line != "" {
			if example = indented; example {
				p.macro("EX")
			} else {
				p.macro("EE")
			}
		}
		if line == "" {
			p.macro("PP")
		} else {
			p.line(escape(line))
		}
	}
	if example {
		p.macro("EE")
	}
}

// lines writes the texts of a list, each on a line.
func (p *page) lines(list []item) {
	for i, l := range list {
		if i > 0 {
			p.macro("br")
		}
		p.line(bold(l.term))
	}
}

// item is a term and its meaning.
type item struct {
	term, text string
}

// items writes a list. An item without a text shares that of the next one.
func (p *page) items(list []item) {
	tag := "TP"
	for _, i := range list {
		p.macro(tag)
		p.line(bold(i.term))
		if tag = "TQ"; i.text != "" {
			p.paragraphs(i.text)
			tag = "TP"
		}
	}
}

// example writes lines unchanged.
func (p *page) example(text string) {
	p.macro("EX")
	for line := range strings.Lines(text) {
		p.line(escape(strings.TrimRight(line, "\n")))
	}
	p.macro("EE")
}

func (p *page) seeAlso(pages string) {
	p.section("SEE ALSO")
	p.line(escape(pages) + ",")
	p.line(escape("/usr/share/doc/clouddragon") + ".")
}
