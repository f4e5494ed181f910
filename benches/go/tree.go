package main

import (
	"context"
	"time"
)

// P1–P3b: deriving a child, finishing it and letting it go, under a parent that lives on.

const timeout = 10 * time.Second

func tree() []workload {
	return []workload{
		{row: "P1", name: "cancel", threads: 1, loop: onParent(withCancel)},
		{row: "P2", name: "2 threads", threads: 2, loop: onParent(withCancel)},
		{row: "P3", name: "1 thread", threads: 1, loop: onParent(withTimeout)},
		{row: "P3", name: "2 threads", threads: 2, loop: onParent(withTimeout)},
		{row: "P3b", name: "1 thread", threads: 1, loop: onParent(withTimeoutObserved)},
		{row: "P3b", name: "2 threads", threads: 2, loop: onParent(withTimeoutObserved)},
	}
}

// What one operation leaves, so that it is done.
type sink struct {
	ctx  context.Context
	done bool
	_    [64]byte // of one thread alone
}

func onParent(operation func(parent context.Context, out *sink)) func() func() batch {
	return func() func() batch {
		parent, cancel := context.WithCancel(context.Background())
		return func() batch {
			out := new(sink)
			return func(times int) {
				// An earlier timer is pending, as there is in any server.
				earlier := time.AfterFunc(timeout-time.Second, cancel)
				for range times {
					operation(parent, out)
				}
				earlier.Stop()
			}
		}
	}
}

func withCancel(parent context.Context, out *sink) {
	ctx, cancel := context.WithCancel(parent)
	cancel()
	out.ctx = ctx
}

func withTimeout(parent context.Context, out *sink) {
	ctx, cancel := context.WithTimeout(parent, timeout)
	cancel()
	out.ctx = ctx
}

func withTimeoutObserved(parent context.Context, out *sink) {
	ctx, cancel := context.WithTimeout(parent, timeout)
	select {
	case <-ctx.Done():
		out.done = true
	default:
	}
	cancel()
	out.ctx = ctx
}
