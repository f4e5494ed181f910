package main

import (
	"context"
	"sync"
	"time"
)

// P12: a hundred thousand goroutines that have nothing to do, started by one of them and waited for.

func groups() []workload {
	return []workload{
		{row: "P12", name: "beside a TaskTracker and a token", whole: spawnAndJoin},
		{row: "P12", name: "beside a JoinSet", whole: spawnAndJoin},
	}
}

// What an errgroup is: a WaitGroup, and a context that the first error cancels.
type group struct {
	wait   sync.WaitGroup
	once   sync.Once
	err    error
	cancel context.CancelCauseFunc
}

func (g *group) start(f func() error) {
	g.wait.Add(1)
	go func() {
		defer g.wait.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel(err)
			})
		}
	}()
}

func spawnAndJoin(s scale) outcome {
	work := func() {
		_, cancel := context.WithCancelCause(context.Background())
		g := group{cancel: cancel}
		for range s.tasks {
			g.start(func() error { return nil })
		}
		g.wait.Wait()
		cancel(g.err)
	}
	work()
	before := waitedByAll()
	begin := time.Now()
	work()
	elapsed := time.Since(begin).Seconds()
	off := (waitedByAll() - before).Seconds()
	return outcome{[]figure{{"ns a task", elapsed * 1e9 / float64(s.tasks)}}, off / (2 * elapsed)}
}
