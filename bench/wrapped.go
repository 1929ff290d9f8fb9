package main

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"time"
)

// wrapped measures what `clouddragon lock` adds to a job that does nothing, in time and in
// CPU time of all its processes, and beside it what a shell adds that takes and gives back
// the lock with curl. All run in turn, since a busy machine changes all of them.
func wrapped() *row {
	figures := []figure{{"ms added", true}, {"CPU ms added", true}, {"ms that a shell with two curls adds", true}, {"CPU ms of these", true}}
	return &row{name: "clouddragon lock: what it adds to a job", conns: 1, work: work{"http": {}}, stateful: true, figures: figures,
		measure: func(ctx context.Context, b *bench, t *target) ([]float64, error) {
			url := "http://" + t.addr
			const curl = `set -e; token=$(curl -sf -X POST "$0/db/default/lock/curl?id=$$"); "$1"; curl -sf -X DELETE "$0/db/default/lock/curl?token=$token"`
			jobs := [][]string{
				{"true"},
				{t.program, "lock", "-server", url, "wrapped", "true"},
				{"sh", "-c", curl, url, "true"},
			}
			if _, err := exec.LookPath("curl"); err != nil {
				jobs = jobs[:2]
			}
			took, cpu := make([][]float64, len(jobs)), make([][]float64, len(jobs))
			for range max(int(200*b.seconds.Seconds()), 1) {
				for i, job := range jobs {
					c := exec.CommandContext(ctx, job[0], job[1:]...)
					began := time.Now()
					if out, err := c.CombinedOutput(); err != nil {
						return nil, fmt.Errorf("%s: %w: %s", job[0], err, out)
					}
					took[i] = append(took[i], micros(time.Since(began))/1000)
					cpu[i] = append(cpu[i], micros(c.ProcessState.UserTime()+c.ProcessState.SystemTime())/1000)
				}
			}
			found := []float64{math.NaN(), math.NaN(), math.NaN(), math.NaN()}
			for i := 1; i < len(jobs); i++ {
				found[2*i-2], found[2*i-1] = median(took[i])-median(took[0]), median(cpu[i])-median(cpu[0])
			}
			return found, nil
		}}
}
