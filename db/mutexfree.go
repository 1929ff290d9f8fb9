package db

import "clouddragon/internal/lease"

// free ends all holds of the mutexes of an account, which moves to another server. Whoever
// waits for one is refused by the token that it would get.
func (m *Mutexes) free(acc string) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		now, wall := s.begin()
		var keys []lease.Key
		s.table.Held(now, func(k lease.Key, _ lease.Holder) {
			if k.Acc == acc {
				keys = append(keys, k)
			}
		})
		for _, k := range keys {
			s.tell(now, wall, s.table.Release(now, k, "", 0, true).Events)
		}
		s.arm(now)
		s.mu.Unlock()
	}
}
