package kvlog

import (
	"slices"

	"clouddragon/internal/hashindex"
)

// shardsAtOnce is how many shards of the index EachName reads at a time. More shards make
// its reads more sequential and take more memory.
const shardsAtOnce = 16

// nameTries is how often EachName tries a shard in which some records cannot be read.
const nameTries = 5

// EachName calls fn with the account and the id of every value that the index points
// to, expired or not, until fn returns false; ok is false then. It reads the head of
// each record. A value that is stored or moved meanwhile may be reported twice. unread
// is how many records could not be read.
func (v *Values) EachName(fn func(acc, id string) bool) (unread int, ok bool) {
	first := firsts.Get().(*[firstRead]byte)
	defer firsts.Put(first)
	var entries, locs []uint64
	for from := 0; from < v.index.Shards(); from += shardsAtOnce {
		for try := 1; ; try++ {
			entries = entries[:0]
			for i := from; i < min(from+shardsAtOnce, v.index.Shards()); i++ {
				entries = v.index.AppendShard(i, entries)
			}
			locs = locs[:0]
			for _, e := range entries {
				locs = append(locs, hashindex.Location(e))
			}
			slices.Sort(locs)
			bad := 0
			for _, loc := range locs {
				r, err := v.read(loc, first[:])
				if err != nil {
					bad++ // its segment may just have been freed; then the index now points elsewhere
					continue
				}
				if !fn(string(r.head.Acc), string(r.head.ID)) {
					return unread, false
				}
			}
			if bad == 0 || try == nameTries {
				unread += bad
				break
			}
		}
	}
	return unread, true
}

// NameOf returns the account and the id in the body of a value's record, which must have
// been checked.
func NameOf(body []byte) (acc, id string) {
	if len(body) < valueHead {
		return "", ""
	}
	a, i := int(body[12]), int(body[13])
	if len(body) < valueHead+a+i {
		return "", ""
	}
	names := body[valueHead:]
	return string(names[:a]), string(names[a : a+i])
}
