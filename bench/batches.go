package main

import (
	"context"
	"strings"
)

// perBatch is how many calls the batches of most rows have.
const perBatch = 100

// batches have perBatch calls in one request. Redis gets as many commands at once.
func batches(query, line string, command work) work {
	lines := strings.Repeat(line+"\n", perBatch)
	return batch(query+"\nContent-Type: text/plain\n\n"+lines, command)
}

// jsonBatches are batches as JSON.
func jsonBatches(call string, command work) work {
	calls := strings.Repeat(","+call, perBatch)
	return batch("\nContent-Type: application/json\n\n["+calls[1:]+"]", command)
}

func batch(rest string, command work) work {
	h := overHTTP("POST /db/many/batch" + rest)
	h.calls = perBatch
	return work{"http": h, "resp": command["resp"]}
}

// besideBatches measures how long single writes take at a constant rate, alone and beside
// batches of so many calls, of which the writer decides one without a pause. The batch's
// own time is that of a batch on an idle server.
func besideBatches(calls int) *row {
	write := loaded("", crowd{work: many, conns: 64, rate: 4000, id: anyOf(1000)})
	large := work{"http": overHTTP("POST /db/many/batch\nContent-Type: text/plain\n\n" + strings.Repeat("POST sequence/large\n", calls))}
	alone := loaded("", crowd{work: large, conns: 1, rate: 4, id: anyOf(1)})
	beside := loaded("", crowd{work: many, conns: 64, rate: 4000, id: anyOf(1000)}, crowd{work: large, conns: 1, rate: 4, id: anyOf(1)})
	return &row{name: "sequence POST, 4,000/s, beside batches of " + thousands(calls), conns: 64, work: large, stateful: true,
		figures: []figure{{"p99 µs", true}, {"p99 µs without", true}, {"a batch alone, µs", true}},
		measure: func(ctx context.Context, b *bench, t *target) ([]float64, error) {
			longer := *b
			longer.seconds *= 4
			var found [3][]float64
			for i, r := range []*row{beside, write, alone} {
				var err error
				if found[i], err = r.measure(ctx, &longer, t); err != nil {
					return nil, err
				}
			}
			return []float64{found[0][1], found[1][1], found[2][0]}, nil
		}}
}
