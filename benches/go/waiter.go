package main

import "context"

// P10 and P11: waiting for an end that does not come, in a select and by a callback.

func waiter() []workload {
	return []workload{
		{row: "P10", name: "register, 1 thread", threads: 1, loop: selectReady},
		{row: "P11", name: "1 thread", threads: 1, loop: onParent(callback)},
		{row: "P11", name: "2 threads", threads: 2, loop: onParent(callback)},
	}
}

// A select whose other branch is ready never parks: it is the nearest that Go has, and includes the channel's send and receive.
func selectReady() func() batch {
	ctx, _ := context.WithCancel(context.Background())
	return func() batch {
		ready := make(chan int, 1)
		return func(times int) {
			for range times {
				ready <- 1
				select {
				case <-ctx.Done():
					panic("it lives")
				case <-ready:
				}
			}
		}
	}
}

func callback(parent context.Context, out *sink) {
	stop := context.AfterFunc(parent, func() { out.done = true })
	if !stop() {
		panic("it lives")
	}
}
