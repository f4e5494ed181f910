// Races: what goroutines do at the same time, many times over. A race a line on standard input: how often, what has been done before,
// and what each goroutine does, between tabs. To standard output: how often each outcome came, a line each; behind them, a dot.
package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const steps = 3

type race struct {
	contexts map[int]node // by name
	stops    map[int]func() bool
	mu       sync.Mutex // guards the maps, and what follows
	ran      []string
}

func state(ctx context.Context) string {
	switch err := ctx.Err(); {
	case err == nil:
		return "live"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("exceeded:%d", reason(ctx))
	default:
		return fmt.Sprintf("canceled:%d", reason(ctx))
	}
}

// Does one action; what it makes has these names. Gives what there is to tell of it.
func (r *race) do(action string, context_, registration int) string {
	words := strings.Fields(action)
	at := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	r.mu.Lock()
	it, stop := r.contexts[at(1)], r.stops[at(1)]
	r.mu.Unlock()
	add := func(ctx context.Context, cancel context.CancelCauseFunc) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.contexts[context_] = node{ctx: ctx, cancel: cancel, live: true}
	}
	switch words[0] {
	case "cancel":
		add(context.WithCancelCause(it.ctx))
	case "deadline":
		timed, _ := context.WithTimeoutCause(it.ctx, time.Duration(at(2))*time.Microsecond, cause(at(3)))
		add(context.WithCancelCause(timed))
	case "detach":
		add(context.WithoutCancel(it.ctx), nil)
	case "end":
		it.cancel(cause(at(2)))
	case "advance": // they have all waited for it
	case "look":
		return "saw=" + state(it.ctx)
	case "watch":
		stop := context.AfterFunc(it.ctx, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ran = append(r.ran, "ran="+strconv.Itoa(registration))
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		r.stops[registration] = stop
	case "stop":
		return "stop=" + strconv.FormatBool(stop())
	default:
		panic("what is " + action + "?")
	}
	return ""
}

// Once. Time is that of testing/synctest, and goroutines are as parallel as ever.
func (r *race) run(before []string, threads [][]string, passes time.Duration, turn int) string {
	root, end := context.WithCancel(context.Background())
	defer end()
	r.contexts[0] = node{ctx: context.WithoutCancel(root), live: true}
	for _, op := range before {
		r.do(op, len(r.contexts), len(r.stops))
	}
	contexts, registrations := len(r.contexts), len(r.stops)
	answers := make([][]string, len(threads))
	var there atomic.Int32
	var all sync.WaitGroup
	for i := range threads {
		me := (i + turn) % len(threads) // who comes first is another one each time
		all.Go(func() {
			time.Sleep(passes) // as the deadline, so that they meet
			there.Add(1)
			for there.Load() < int32(len(threads)) {
				runtime.Gosched()
			}
			for range (turn >> (2 * me)) % 4 * 64 {
				there.Load()
			}
			for step, action := range threads[me] {
				name := me*steps + step
				answers[me] = append(answers[me], r.do(action, contexts+name, registrations+name))
			}
		})
	}
	all.Wait()
	synctest.Wait()
	words := slices.DeleteFunc(slices.Concat(answers...), func(word string) bool { return word == "" })
	for name := 1; name < contexts+len(threads)*steps; name++ {
		if it, ok := r.contexts[name]; ok {
			words = append(words, fmt.Sprintf("%d=%s", name, state(it.ctx)))
		}
	}
	slices.Sort(r.ran)
	for _, it := range r.contexts {
		if it.cancel != nil {
			it.cancel(nil)
		}
	}
	return strings.Join(append(words, r.ran...), " ")
}

func TestRaces(t *testing.T) {
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		parts := strings.Split(input.Text(), "\t")
		times, err := strconv.Atoi(parts[0])
		if err != nil {
			panic(err)
		}
		before := strings.Split(parts[1], ";")
		var threads [][]string
		var passes time.Duration
		for _, actions := range parts[2:] {
			threads = append(threads, strings.Split(actions, ";"))
			if by, ok := strings.CutPrefix(actions, "advance "); ok {
				micros, err := strconv.Atoi(by)
				if err != nil {
					panic(err)
				}
				passes = time.Duration(micros) * time.Microsecond
			}
		}
		outcomes := map[string]int{}
		for turn := range times {
			synctest.Test(t, func(*testing.T) {
				r := &race{contexts: map[int]node{}, stops: map[int]func() bool{}}
				outcomes[r.run(before, threads, passes, turn)]++
			})
		}
		for outcome, count := range outcomes {
			fmt.Printf("%d %s\n", count, outcome)
		}
		fmt.Println(".")
	}
}
