package main

import (
	"strconv"

	"golang.org/x/sys/unix"

	"clouddragon/db"
	"clouddragon/handlers"
	"clouddragon/internal/replica"
	"clouddragon/metrics"
	"clouddragon/slots"
)

// apiNames returns the names of the APIs, indexed by their numbers.
func apiNames() []string {
	var names []string
	for a := handlers.Other; a <= handlers.Metrics; a++ {
		names = append(names, a.String())
	}
	return names
}

// sources returns the sources of the metrics.
func sources(dir string, d *db.DB, dropped func() uint64, status func() replica.Status) metrics.Sources {
	return metrics.Sources{
		Dropped: dropped,
		Storage: func() metrics.Storage {
			s := d.Stats()
			out := metrics.Storage{
				Queue:          s.Queue,
				IndexBytes:     s.Tables.IndexBytes + s.Values.IndexBytes,
				LogBytes:       s.Log.Bytes,
				Segments:       s.Log.Segments,
				RecoveryTook:   s.Recovery.Took,
				RecoveryBytes:  s.Recovery.Bytes,
				Checkpoints:    s.Checkpoints,
				CheckpointTook: s.CheckpointTook,
				CheckpointAt:   s.CheckpointAt,
				BackupAt:       s.BackedUp,
				Stopped:        s.Stopped,
				DiskFull:       s.DiskFull,
				Pending:        s.Pending,
			}
			for i, c := range s.Tables.Classes {
				out.Slots = append(out.Slots, metrics.Slots{Class: strconv.Itoa(slots.Classes[i]), Used: c.Used, Capacity: c.Capacity})
				out.TableBytes += c.FileBytes
			}
			return out
		},
		Disk: func() (metrics.Disk, error) {
			var s unix.Statfs_t
			if err := unix.Statfs(dir, &s); err != nil {
				return metrics.Disk{}, err
			}
			return metrics.Disk{FreeBytes: s.Bavail * uint64(s.Bsize), SizeBytes: s.Blocks * uint64(s.Bsize)}, nil
		},
		Locks: func() []metrics.Locks {
			s := d.Stats()
			return []metrics.Locks{locksOf(handlers.MLock, s.Mutexes), locksOf(handlers.Lock, s.Locks)}
		},
		Rates: func() metrics.Rates { return metrics.Rates{Waiters: d.Stats().RateWaiters} },
		Names: func() metrics.Names {
			s := d.Stats().Names
			return metrics.Names{
				Runs: s.Runs, Pending: s.Memory, MemoryBytes: s.Bytes, DiskBytes: s.Disk,
				Rebuilding: s.Rebuilding, Rebuilt: s.Told, Rebuilds: s.Rebuilds,
			}
		},
		Replica: func() metrics.Replica {
			s := status()
			return metrics.Replica{Role: s.Role, Epoch: s.Epoch, Standby: s.Standby != "", Sync: s.Sync, InSync: s.InSync, Live: s.Live, Batches: s.Batches, Seconds: s.Seconds, Skew: s.ClockSkew}
		},
		Watch: func() metrics.Watch { return metrics.Watch(d.Stats().Watch) },
		KV: func() metrics.KV {
			all := d.Stats()
			s := all.Values
			return metrics.KV{
				Keys: s.Keys, LiveBytes: s.Live, LogBytes: s.Total, Reads: s.Reads, Damaged: s.Damaged,
				Compactions: all.Compaction.Runs, MovedBytes: all.Compaction.MovedBytes,
				Retries: metrics.Retries(all.Retries),
			}
		},
	}
}

// locksOf converts the counts of mutexes or locks.
func locksOf(api handlers.API, s db.LockStats) metrics.Locks {
	return metrics.Locks{
		API: api.String(), Held: s.Held, Holders: s.Holders, Waiters: s.Waiting,
		Granted: s.Granted, Refused: s.Refused, TimedOut: s.TimedOut, Expired: s.Expired, Forced: s.Forced, Lost: s.NotHolder,
	}
}
