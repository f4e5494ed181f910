package main

import (
	"context"
	"runtime"
	"time"
)

// P8: resident bytes of a live child, of a million of them, in a fresh process each.

func memory() []workload {
	return []workload{
		{row: "P8", name: "child", alone: true, whole: func(s scale) outcome {
			return residentOf(s, func(parent context.Context) (context.Context, context.CancelFunc) {
				return context.WithCancel(parent)
			})
		}},
		{row: "P8", name: "child with an armed deadline", alone: true, whole: func(s scale) outcome {
			return residentOf(s, func(parent context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(parent, 10*time.Minute)
			})
		}},
	}
}

type handles struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func residentOf(s scale, make1 func(context.Context) (context.Context, context.CancelFunc)) outcome {
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	live := make([]handles, s.nodes)
	for i := range live { // touched beforehand
		live[i].ctx = parent
	}
	runtime.GC()
	before := resident()
	for i := range live {
		live[i].ctx, live[i].cancel = make1(parent)
	}
	bytes := resident() - before
	runtime.KeepAlive(live)
	return outcome{[]figure{{"bytes", bytes / float64(s.nodes)}}, 0}
}
