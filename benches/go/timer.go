package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// P9 and P9b: a million deadlines that never come, and a hundred thousand that come within a second.

func timer() []workload {
	return []workload{
		{row: "P9", name: "create and cancel", whole: deadlines},
		{row: "P9b", name: "fire", whole: fire},
	}
}

// 10 to 69 s away, in no order.
func far(now time.Time, i int) time.Time {
	spread := uint64(i) * 0x9E3779B97F4A7C15 % 59_000_000
	return now.Add(10*time.Second + time.Duration(spread)*time.Microsecond)
}

func deadlines(s scale) outcome {
	parent, end := context.WithCancel(context.Background())
	defer end()
	live := make([]handles, s.nodes)
	runtime.GC()
	now := time.Now()
	create := watch(func() int {
		for i := range live {
			live[i].ctx, live[i].cancel = context.WithDeadline(parent, far(now, i))
		}
		return s.nodes
	})
	cancel := watch(func() int {
		for i := range live {
			live[i].cancel()
		}
		return s.nodes
	})
	disturbed := max(create.waited/create.elapsed().Seconds(), cancel.waited/cancel.elapsed().Seconds())
	return outcome{[]figure{{"create ns", create.ns()}, {"cancel ns", cancel.ns()}}, disturbed}
}

func fire(s scale) outcome {
	parent, end := context.WithCancel(context.Background())
	defer end()
	us := make([]float64, s.firings)
	kept := make([]handles, s.firings)
	finished := make(chan struct{}, 1)
	var seen atomic.Int64
	// Time to arm them all.
	first := time.Now().Add(100*time.Millisecond + time.Duration(s.firings)*5*time.Microsecond)
	step := s.spread / time.Duration(s.firings)
	for i := range s.firings {
		at := first.Add(time.Duration(i) * step)
		kept[i].ctx, kept[i].cancel = context.WithDeadline(parent, at)
		context.AfterFunc(kept[i].ctx, func() {
			us[i] = time.Since(at).Seconds() * 1e6
			if seen.Add(1) == int64(s.firings) {
				finished <- struct{}{}
			}
		})
	}
	disturbed := 0.0
	if !time.Now().Before(first) {
		disturbed = 1
	}
	time.Sleep(time.Until(first) - 20*time.Millisecond)
	before := cpu()
	<-finished
	perFiring := float64((cpu() - before).Nanoseconds()) / float64(s.firings)
	runtime.KeepAlive(kept)
	figures := []figure{{"p50 us", quantile(us, 0.5)}, {"p99 us", quantile(us, 0.99)}, {"cpu ns", perFiring}}
	return outcome{figures, disturbed}
}
