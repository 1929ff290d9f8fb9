// Package browser tests the status page in a real browser: Debian's Chromium, without a
// window, which the tests drive over the DevTools protocol. The server is the program
// itself, and what the page should show is done over HTTP.
//
// Without Chromium the tests are skipped; where CLOUDDRAGON_CRASH_REQUIRED is set they
// fail. With CLOUDDRAGON_SCREENSHOTS=DIR, TestScreenshots leaves pictures of the page there.
package browser
