package metrics

// Replica is the state of replication as one of the two servers sees it.
type Replica struct {
	Role    string // "primary", "standby" or "replaced"
	Epoch   uint64
	Standby bool    // a primary has one, or the server is one
	Sync    bool    // an answer waits for both disks
	InSync  bool    // the standby has every write that was answered
	Live    bool    // the other server sent something recently
	Batches uint64  // that the standby lacks
	Seconds float64 // since the standby last had everything
	Skew    float64 // seconds that the clock of a standby is ahead of the primary's
}

var replicaSeries = []series[Replica]{
	gauge("replica_primary", "1 if the server is the primary, or the only server, else 0.",
		func(r Replica) float64 { return one(r.Role == "primary") }),
	gauge("replica_standby", "1 if there is a standby, or the server is one, else 0.",
		func(r Replica) float64 { return one(r.Standby) }),
	gauge("replica_epoch", "The epoch: the number of promotions so far.",
		func(r Replica) float64 { return float64(r.Epoch) }),
	gauge("replica_sync", "1 if answers also wait for the disk of the standby, else 0.",
		func(r Replica) float64 { return one(r.Sync) }),
	gauge("replica_in_sync", "1 if the standby has every write that was answered, else 0.",
		func(r Replica) float64 { return one(r.InSync) }),
	gauge("replica_live", "1 if the other server sent something recently, else 0.",
		func(r Replica) float64 { return one(r.Live) }),
	gauge("replica_lag_batches", "Batches of the log that the standby lacks.",
		func(r Replica) float64 { return float64(r.Batches) }),
	gauge("replica_lag_seconds", "How long ago the standby last had everything, in seconds; 0 while it has everything.",
		func(r Replica) float64 { return r.Seconds }),
	gauge("replica_clock_skew_seconds", "How far the clock of the standby is ahead of the primary's, in seconds; 0 on the primary.",
		func(r Replica) float64 { return r.Skew }),
}
