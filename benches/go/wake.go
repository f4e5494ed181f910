package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// P7 and P7b: canceling what many goroutines wait for, and waking a single waiter that sleeps on the other core.

// After this, who is about to sleep does so.
const asleep = 100 * time.Microsecond

func wake() []workload {
	return []workload{
		{row: "P7", name: "one context", whole: func(s scale) outcome { return fanOut(s, false) }},
		{row: "P7", name: "a child each", whole: func(s scale) outcome { return fanOut(s, true) }},
		{row: "P7b", name: "thread", whole: func(s scale) outcome { return wakeOne(s, true) }},
		{row: "P7b", name: "task", whole: func(s scale) outcome { return wakeOne(s, false) }},
	}
}

// The time from cancel, in a goroutine, until all the others have seen it.
func fanOut(s scale, children bool) outcome {
	ctx, cancel := context.WithCancel(context.Background())
	var waiting, seen atomic.Int64
	finished := make(chan time.Time, 1)
	for range s.tasks {
		waited := ctx
		if children {
			waited, _ = context.WithCancel(ctx)
		}
		go func() {
			waiting.Add(1)
			<-waited.Done()
			if seen.Add(1) == int64(s.tasks) {
				finished <- time.Now()
			}
		}()
	}
	for waiting.Load() < int64(s.tasks) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond)
	before := waitedByAll()
	started := make(chan time.Time, 1)
	go func() {
		begin := time.Now()
		cancel()
		started <- begin
	}()
	end, begin := <-finished, <-started
	elapsed := end.Sub(begin).Seconds()
	off := (waitedByAll() - before).Seconds()
	return outcome{[]figure{{"ns a waiter", elapsed * 1e9 / float64(s.tasks)}}, off / (2 * elapsed)}
}

// The time from a cancel on one core until a waiter that slept has come back. Either that has a thread of its own on the other
// core, or it is a goroutine as any other.
func wakeOne(s scale, thread bool) outcome {
	jobs := make(chan context.Context)
	wakes := make(chan time.Time, 1)
	var ready atomic.Bool
	go func() {
		if thread {
			runtime.LockOSThread()
			pin(0)
		}
		for ctx := range jobs {
			ready.Store(true)
			<-ctx.Done()
			wakes <- time.Now()
		}
	}()
	result := make(chan outcome)
	go func() {
		runtime.LockOSThread()
		pinned := pin(1)
		var us []float64
		t := watch(func() int {
			for range s.wakes {
				ctx, cancel := context.WithCancel(context.Background())
				jobs <- ctx
				for !ready.Swap(false) {
				}
				for from := time.Now(); time.Since(from) < asleep; {
				}
				begin := time.Now()
				cancel()
				us = append(us, (<-wakes).Sub(begin).Seconds()*1e6)
			}
			return s.wakes
		})
		disturbed := t.waited / t.elapsed().Seconds()
		if !pinned {
			disturbed = 1
		}
		result <- outcome{[]figure{{"p50 us", quantile(us, 0.5)}, {"p99 us", quantile(us, 0.99)}}, disturbed}
	}()
	found := <-result
	close(jobs)
	return found
}
