package main

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// How it is sampled is told in ../src/measure.rs. A goroutine that is measured is locked to its thread, so that the
// scheduler's books are its own; the collector and the other goroutines go on beside it, as they would.

const (
	tolerated  = 0.02
	triesOne   = 8
	triesTwo   = 30
	triesWhole = 3
)

type scale struct {
	samples, wholes              int
	one, two                     time.Duration
	nodes, tasks, wakes, firings int
	spread                       time.Duration
}

var full = scale{
	samples: 5, wholes: 3, one: 15 * time.Millisecond, two: 4 * time.Millisecond,
	nodes: 1_000_000, tasks: 100_000, wakes: 1_000, firings: 100_000, spread: time.Second,
}

var quick = scale{
	samples: 3, wholes: 1, one: 3 * time.Millisecond, two: 2 * time.Millisecond,
	nodes: 100_000, tasks: 20_000, wakes: 200, firings: 20_000, spread: 200 * time.Millisecond,
}

type sample struct {
	ns        float64
	elapsed   time.Duration
	disturbed float64
}

func sampleLoop(w workload, s scale) []sample {
	once, tries, target, stop := alone(w.loop()), triesOne, s.one, func() {}
	if w.threads == 2 {
		once, stop = together(w.loop())
		tries, target = triesTwo, s.two
	}
	defer stop()
	times := 3
	for {
		elapsed := once(times).elapsed
		if elapsed*8 >= target || times >= 1<<40 {
			times = max(3, int(float64(times)*target.Seconds()/elapsed.Seconds()))
			break
		}
		times *= 4
	}
	var samples []sample
	for range s.samples {
		best := once(times)
		for try := 1; try < tries && best.disturbed > tolerated; try++ {
			if next := once(times); next.disturbed < best.disturbed {
				best = next
			}
		}
		samples = append(samples, best)
	}
	return samples
}

// On one thread.
func alone(shared func() batch) func(times int) sample {
	run := shared()
	return func(times int) sample {
		run(times/16 + 1)
		t := watch(func() int { run(times); return times })
		return sample{t.ns(), t.elapsed(), t.waited / t.elapsed().Seconds()}
	}
}

// On two threads, pinned, which are kept from sample to sample.
func together(shared func() batch) (once func(times int) sample, stop func()) {
	type order struct {
		times int
		ready *atomic.Int32
		over  *atomic.Bool
	}
	results := make(chan timed)
	pins := make(chan bool)
	var orders [2]chan order
	for core := range orders {
		orders[core] = make(chan order)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread, being pinned, ends with the goroutine
			pins <- pin(core)
			run := shared()
			for o := range orders[core] {
				run(o.times/16 + 1)
				o.ready.Add(1)
				for turns := 1; o.ready.Load() < 2; turns++ {
					if turns%(1<<14) == 0 {
						runtime.Gosched()
					}
				}
				part := o.times/64 + 1
				results <- watch(func() int {
					done := 0
					for done < o.times && !o.over.Load() {
						run(part)
						done += part
					}
					o.over.Store(true)
					return done
				})
			}
		}()
	}
	first, second := <-pins, <-pins
	once = func(times int) sample {
		var ready atomic.Int32
		var over atomic.Bool
		for _, c := range orders {
			c <- order{times, &ready, &over}
		}
		a, b := <-results, <-results
		longest := max(a.elapsed(), b.elapsed())
		shared := min(a.end.Sub(b.begin), b.end.Sub(a.begin), longest)
		disturbed := max(1-shared.Seconds()/longest.Seconds(), max(a.waited, b.waited)/longest.Seconds())
		if !first || !second {
			disturbed = 1
		}
		ns := float64((a.elapsed() + b.elapsed()).Nanoseconds()) / float64(a.times+b.times)
		return sample{ns, longest, disturbed}
	}
	return once, func() { close(orders[0]); close(orders[1]) }
}

type timed struct {
	begin, end time.Time
	times      int
	waited     float64 // in s: how long it was runnable, and did not run
}

func (t timed) elapsed() time.Duration { return t.end.Sub(t.begin) }
func (t timed) ns() float64            { return float64(t.elapsed().Nanoseconds()) / float64(t.times) }

func watch(body func() int) timed {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := waited()
	begin := time.Now()
	times := body()
	end := time.Now()
	return timed{begin, end, times, (waited() - before).Seconds()}
}

func waited() time.Duration {
	text, _ := os.ReadFile("/proc/thread-self/schedstat")
	return nthNumber(string(text), 1)
}

func waitedByAll() (sum time.Duration) {
	folders, _ := os.ReadDir("/proc/self/task")
	for _, folder := range folders {
		text, _ := os.ReadFile("/proc/self/task/" + folder.Name() + "/schedstat")
		sum += nthNumber(string(text), 1)
	}
	return
}

func nthNumber(text string, nth int) time.Duration {
	words := strings.Fields(text)
	if nth >= len(words) {
		return 0
	}
	n, _ := strconv.ParseInt(words[nth], 10, 64)
	return time.Duration(n)
}

func cpu() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func resident() float64 {
	text, _ := os.ReadFile("/proc/self/statm")
	return float64(nthNumber(string(text), 1)) * 4096
}

// The cores that the process may use: what its first thread may, when the program starts.
var cores = func() []int {
	var mask [16]uint64
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	var cores []int
	for core := 0; errno == 0 && core < len(mask)*64; core++ {
		if mask[core/64]&(1<<(core%64)) != 0 {
			cores = append(cores, core)
		}
	}
	return cores
}()

// Ties the thread to the nth core that the process may use. The goroutine has to be locked to it.
func pin(nth int) bool {
	if nth >= len(cores) || len(cores) < 2 {
		return false
	}
	var mask [16]uint64
	mask[cores[nth]/64] = 1 << (cores[nth] % 64)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	return errno == 0
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func quantile(values []float64, part float64) float64 {
	slices.Sort(values)
	return values[int(float64(len(values)-1)*part+0.5)]
}
