// Man writes the manual pages clouddragon(1), clouddragon-lock(1) and clouddragon.yml(5).
// Their text comes from -help of each command, config.yml and the README.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	root := flag.String("root", ".", "the repository")
	binary := flag.String("binary", "bin/clouddragon", "the program whose -help is asked for")
	date := flag.String("date", "", "the date of the pages, as 2026-11-26")
	out := flag.String("out", "", "the directory to write to")
	flag.Parse()
	if *date == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(64)
	}
	if err := write(*root, *binary, *date, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write makes all pages and writes each to its file in dir.
func write(root, binary, date, dir string) error {
	pages, err := pages(root, binary, date)
	if err != nil {
		return err
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command is a line of the main help's usage that names a command.
var command = regexp.MustCompile(`^clouddragon ([a-z]+) `)

// pages returns the pages by their file names.
func pages(root, binary, date string) (map[string]string, error) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile(filepath.Join(root, "config.yml"))
	if err != nil {
		return nil, err
	}
	about, examples, err := fromReadme(string(readme))
	if err != nil {
		return nil, err
	}
	version, err := exec.Command(binary, "-version").Output()
	if err != nil {
		return nil, err
	}
	source := strings.Join(strings.Fields(string(version))[:2], " ") // the program's name and its version
	main, err := helpOf(binary)
	if err != nil {
		return nil, err
	}

	p := newPage("clouddragon", 1, date, source)
	p.name("sequences, counters, values, locks and rates over HTTP")
	p.section("SYNOPSIS")
	p.lines(main.usage)
	p.section("DESCRIPTION")
	p.paragraphs(about)
	p.section("COMMANDS")
	p.items(main.usage)
	p.macro("PP")
	p.help(main, p.section)
	all := map[string]string{}
	for _, u := range main.usage {
		m := command.FindStringSubmatch(u.term + " ")
		if m == nil {
			continue
		}
		h, err := helpOf(binary, m[1])
		if err != nil {
			return nil, err
		}
		if m[1] == "lock" {
			all["clouddragon-lock.1"] = lockPage(h, u.text, examples, date, source)
			continue
		}
		p.section("CLOUDDRAGON " + strings.ToUpper(m[1]))
		p.lines(h.usage)
		p.macro("PP")
		p.help(h, p.subsection)
	}
	p.section("FILES")
	p.items([]item{
		{"/etc/clouddragon/config.yml", "the configuration of the service: clouddragon.yml(5)"},
		{"/etc/clouddragon/env", "environment of the service and of the backup, for root alone; need not be there"},
		{"/var/lib/clouddragon/data", "the data directory of the service"},
		{"/var/lib/clouddragon-backup", "what clouddragon-backup.timer stores, if it is enabled"},
	})
	p.seeAlso("clouddragon-lock(1), clouddragon.yml(5)")
	all["clouddragon.1"] = p.String()
	all["clouddragon.yml.5"], err = configPage(string(config), date, source)
	if len(all) != 3 && err == nil {
		err = fmt.Errorf("%s -help does not name the command lock", binary)
	}
	return all, err
}

// lockPage is clouddragon-lock(1).
func lockPage(h help, what, examples, date, source string) string {
	p := newPage("clouddragon-lock", 1, date, source)
	p.name(what)
	p.section("SYNOPSIS")
	p.lines(h.usage)
	p.section("DESCRIPTION")
	p.help(h, p.section)
	p.section("EXAMPLES")
	p.example(examples)
	p.seeAlso("clouddragon(1)")
	return p.String()
}

// fromReadme returns what the server is, and the examples of clouddragon lock.
func fromReadme(text string) (about, examples string, err error) {
	_, first, _ := strings.Cut(text, "\n\n")
	about, _, _ = strings.Cut(first, "\n\n")
	_, section, _ := strings.Cut(text, "\n## Running a command once\n")
	_, block, _ := strings.Cut(section, "```sh\n")
	examples, _, ok := strings.Cut(block, "```")
	if !ok || about == "" {
		return "", "", fmt.Errorf("README.md has no first paragraph, or no examples under %q", "Running a command once")
	}
	return about, strings.TrimSuffix(examples, "\n"), nil
}
