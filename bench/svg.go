package main

import (
	"fmt"
	"html"
	"strings"
)

// curve is a line in a panel.
type curve struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// panel is a diagram of a picture.
type panel struct {
	title, x, y    string // what the axes are of
	xLabel, yLabel func(float64) string
	xBase, yBase   float64 // of logarithmic axes; 0: linear
	curves         []curve
}

// Colors that are told apart by most people, on a light and on a dark ground.
var (
	colors = []string{"#2f81f7", "#db6d28", "#2da44e", "#bf5af2"}
	ink    = "#7d8590" // of text and axes
)

// The sizes, in px.
const (
	cellWidth, cellHeight = 320, 240
	left, right           = 62, 14 // of the cell's edge to the diagram
	top, bottom           = 30, 64
	perLine               = 3   // panels
	charWidth             = 6.4 // of most text, at the font's size
)

// picture draws the panels as an SVG file.
func picture(panels []panel) string {
	var b strings.Builder
	width := cellWidth * min(perLine, len(panels))
	height := cellHeight * ((len(panels) + perLine - 1) / perLine)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" `+
		`font-family="sans-serif" font-size="11" fill="%s">`+"\n", width, height, width, height, ink)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%perLine*cellWidth, i/perLine*cellHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder) {
	var xs, ys []float64
	for _, c := range p.curves {
		for _, at := range c.points {
			xs, ys = append(xs, at.x), append(ys, at.y)
		}
	}
	x := newAxis(xs, p.xBase, left, cellWidth-right, p.xLabel)
	y := newAxis(ys, p.yBase, cellHeight-bottom, top, p.yLabel)
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2, opacity float64) {
		fmt.Fprintf(b, `<path d="M%.1f %.1fL%.1f %.1f" stroke="%s" stroke-opacity="%.1f"/>`+"\n", x1, y1, x2, y2, ink, opacity)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, top-12, html.EscapeString(p.title))
	for i, t := range y.ticks {
		opacity := .3
		if i == 0 {
			opacity = 1
		}
		line(x.from, y.place(t), x.to, y.place(t), opacity)
		text(x.from-6, y.place(t)+4, "end", y.label(t))
	}
	for _, t := range x.ticks {
		line(x.place(t), y.from, x.place(t), y.from+4, 1)
		text(x.place(t), y.from+16, "middle", x.label(t))
	}
	text((x.from+x.to)/2, y.from+31, "middle", p.x)
	fmt.Fprintf(b, `<text transform="translate(12 %.1f) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (y.from+y.to)/2, html.EscapeString(p.y))
	at := p.legend()
	for i, c := range p.curves {
		color := colors[i%len(colors)]
		var d strings.Builder
		for j, at := range c.points {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(j, 1)], x.place(at.x), y.place(at.y))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", x.place(at.x), y.place(at.y), color)
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", d.String(), color)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%d" r="3.5" fill="%s"/>`+"\n", at[i], cellHeight-16, color)
		text(at[i]+7, cellHeight-12, "start", c.name)
	}
}

// legend says where the names of the curves start: below the axis, one after
// the other, and in its middle as far as the cell lets them.
func (p panel) legend() []float64 {
	const gap = 20 // of a dot, its name's distance from it, and the next dot
	var at []float64
	total := 0.
	for _, c := range p.curves {
		at = append(at, total)
		total += gap + charWidth*float64(len(c.name))
	}
	from := max(8, min(float64(left+cellWidth-right)-total, 2*(cellWidth-total))/2)
	for i := range at {
		at[i] += from
	}
	return at
}
