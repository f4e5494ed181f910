// One round of one row, for Go's context: the workloads of ../src, and the same lines of JSON.
//
//	bench ROW [--quick]
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// A workload is either a loop, which is timed per operation, or a whole, which is done once and has figures of its own.
type workload struct {
	row, name string
	// For a loop: on how many threads, and what they share. It gives each thread its batch.
	threads int
	loop    func() func() batch
	// For a whole.
	whole func(scale) outcome
	alone bool // in a process of its own
}

// Does the operation so many times.
type batch func(times int)

type figure struct {
	metric string
	value  float64
}

type outcome struct {
	figures   []figure
	disturbed float64
}

func workloads() []workload {
	var all []workload
	for _, family := range []func() []workload{tree, poll, value, sweep, wake, memory, timer, waiter, groups} {
		all = append(all, family()...)
	}
	return all
}

func main() {
	args := os.Args[1:]
	s := full
	if len(args) > 1 && args[len(args)-1] == "--quick" {
		s, args = quick, args[:len(args)-1]
	}
	known, prepared := false, false
	for _, w := range workloads() {
		switch {
		case len(args) == 3 && args[0] == "--alone" && args[1] == w.row && args[2] == w.name:
			known = true
			for _, f := range w.whole(s).figures {
				print(w, f.metric, f.value, false)
			}
		case len(args) == 1 && args[0] == w.row:
			known = true
			if w.whole != nil && !w.alone && !prepared {
				prepared = true
				prepareHeap(s.nodes * node)
			}
			round(w, s)
		}
	}
	if !known {
		fmt.Fprintf(os.Stderr, "no such row: %q\n", args)
		os.Exit(1)
	}
}

// What a node of a large tree may need, with all that belongs to it.
const node = 512

// Has so much memory at hand: otherwise the rows of a million measure page faults.
func prepareHeap(bytes int) {
	heap := make([]byte, bytes)
	for i := 0; i < len(heap); i += 4096 {
		heap[i] = 1
	}
	runtime.KeepAlive(heap)
	runtime.GC()
}

func round(w workload, s scale) {
	defer func() {
		if why := recover(); why != nil {
			fmt.Fprintln(os.Stderr, w.row, w.name, why)
			fmt.Printf(`{"row":"%s","case":"%s","peer":"go","metric":"failed","value":0}`+"\n", w.row, w.name)
		}
	}()
	switch {
	case w.loop != nil:
		samples := sampleLoop(w, s)
		report(w, "ns", samples)
	case w.alone:
		args := []string{"--alone", w.row, w.name}
		if s == quick {
			args = append(args, "--quick")
		}
		other := exec.Command(os.Args[0], args...)
		other.Stdout, other.Stderr = os.Stdout, os.Stderr
		if err := other.Run(); err != nil {
			panic(err)
		}
	default:
		samples := map[string][]sample{}
		var metrics []string
		for range s.wholes {
			best := w.whole(s)
			for try := 1; try < triesWhole && best.disturbed > tolerated; try++ {
				if next := w.whole(s); next.disturbed < best.disturbed {
					best = next
				}
			}
			for _, f := range best.figures {
				if samples[f.metric] == nil {
					metrics = append(metrics, f.metric)
				}
				samples[f.metric] = append(samples[f.metric], sample{f.value, 0, best.disturbed})
			}
		}
		for _, metric := range metrics {
			report(w, metric, samples[metric])
		}
	}
}

// The median of the undisturbed samples; if there are none, that of all, and it is marked.
func report(w workload, metric string, samples []sample) {
	var quiet, all []float64
	for _, s := range samples {
		all = append(all, s.ns)
		if s.disturbed <= tolerated {
			quiet = append(quiet, s.ns)
		}
	}
	disturbed := len(quiet) == 0
	if disturbed {
		quiet = all
	}
	print(w, metric, median(quiet), disturbed)
}

func print(w workload, metric string, value float64, disturbed bool) {
	fmt.Printf(`{"row":"%s","case":"%s","peer":"go","metric":"%s","value":%.4f,"disturbed":%t}`+"\n",
		w.row, w.name, metric, value, disturbed)
}
