package main

import (
	"context"
	"fmt"
	"time"
)

// P4: asking a leaf whether it is done.

func poll() []workload {
	var all []workload
	for _, leaf := range []string{"live", "done", "live, armed deadline"} {
		for _, depth := range []int{1, 10, 100} {
			for threads := 1; threads <= 2; threads++ {
				if threads == 2 && depth == 10 {
					continue
				}
				name := fmt.Sprintf("%s, depth %d, 1 thread", leaf, depth)
				if threads == 2 {
					name = fmt.Sprintf("%s, depth %d, 2 threads", leaf, depth)
				}
				all = append(all, workload{row: "P4", name: name, threads: threads, loop: pollLeaf(leaf, depth)})
			}
		}
	}
	name := "live, deadline nobody waits for, depth 1, 1 thread"
	return append(all, workload{row: "P4", name: name, threads: 1, loop: pollLeaf("live, armed deadline", 1)})
}

func pollLeaf(leaf string, depth int) func() func() batch {
	return func() func() batch {
		ctx, end := context.WithCancel(context.Background())
		if leaf == "live, armed deadline" { // Go's always are
			ctx, end = context.WithTimeout(context.Background(), time.Hour)
		}
		for range depth {
			ctx, _ = context.WithCancel(ctx)
		}
		if leaf == "done" {
			end()
		}
		return func() batch {
			out := new(sink)
			return func(times int) {
				for range times {
					out.done = ctx.Err() != nil
				}
			}
		}
	}
}
