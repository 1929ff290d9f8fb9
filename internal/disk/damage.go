package disk

import "fmt"

// Damage says that a file does not hold what was durable in it once. It is one
// type for every file of a data directory, so that whoever opens or verifies one
// can tell damage from a disk that fails. As an error it is a *Damage.
type Damage struct {
	File   string // within the data directory, such as "log/00000001.seg"
	Offset int64  // in bytes, of the first place that is bad
	What   string // is wrong there
	Lost   string // what is lost with it; "" if that is not known
}

func (d *Damage) Error() string {
	text := fmt.Sprintf("%s at byte %d: %s", d.File, d.Offset, d.What)
	if d.Lost != "" {
		text += "; lost: " + d.Lost
	}
	return text
}
