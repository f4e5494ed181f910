package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// P6 and P6b: canceling a large tree, and what another thread feels of it meanwhile.

// An observer that was kept from running for longer than this has seen the scheduler's stall.
const keptOff = 2 * time.Microsecond

func sweep() []workload {
	return []workload{
		{row: "P6", name: "children", whole: func(s scale) outcome { return cancelTree(s, false) }},
		{row: "P6", name: "chain", whole: func(s scale) outcome { return cancelTree(s, true) }},
		{row: "P6b", name: "is_done on a child", whole: func(s scale) outcome {
			return stall(s, func(_, child context.Context, out *sink) { out.done = child.Err() != nil })
		}},
		{row: "P6b", name: "derive on the parent", whole: func(s scale) outcome {
			return stall(s, func(parent, _ context.Context, out *sink) { withCancel(parent, out) })
		}},
	}
}

// The root is not among the nodes.
func grow(s scale, chain bool) (root context.Context, cancel context.CancelFunc, nodes []context.Context) {
	root, cancel = context.WithCancel(context.Background())
	parent := root
	for range s.nodes {
		child, _ := context.WithCancel(parent)
		nodes = append(nodes, child)
		if chain {
			parent = child
		}
	}
	return
}

func cancelTree(s scale, chain bool) outcome {
	_, cancel, nodes := grow(s, chain)
	runtime.GC()
	t := watch(func() int { cancel(); return s.nodes })
	if nodes[s.nodes-1].Err() == nil {
		panic("it lives")
	}
	return outcome{[]figure{{"ns a node", t.ns()}}, t.waited / t.elapsed().Seconds()}
}

// The longest that the operation took on one core while the cancel ran on another.
func stall(s scale, operation func(parent, child context.Context, out *sink)) outcome {
	root, cancel, nodes := grow(s, false)
	runtime.GC()
	last := nodes[s.nodes-1]
	var ready atomic.Int32
	var over atomic.Bool
	canceler := make(chan float64)
	go func() {
		runtime.LockOSThread()
		pinned := pin(1)
		lineUp(&ready)
		t := watch(func() int { cancel(); return 1 })
		over.Store(true)
		if !pinned {
			t.waited = t.elapsed().Seconds()
		}
		canceler <- t.waited / t.elapsed().Seconds()
	}()
	observer := make(chan time.Duration)
	var off time.Duration
	go func() {
		runtime.LockOSThread()
		pin(0)
		out := new(sink)
		var longest time.Duration
		lineUp(&ready)
		before := waited()
		for !over.Load() {
			from := time.Now()
			operation(root, last, out)
			longest = max(longest, time.Since(from))
		}
		off = waited() - before
		observer <- longest
	}()
	disturbed := <-canceler
	longest := <-observer
	if off > keptOff {
		disturbed = max(disturbed, 2*tolerated)
	}
	return outcome{[]figure{{"worst us", longest.Seconds() * 1e6}}, disturbed}
}

func lineUp(ready *atomic.Int32) {
	ready.Add(1)
	for ready.Load() < 2 {
		runtime.Gosched()
	}
}
