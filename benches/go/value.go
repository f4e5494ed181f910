package main

import (
	"context"
	"fmt"
)

// P5: values. n contexts, one below the other, each with a value under a key of its own.

type key struct{ number int }

// Compared by address. The last one is never set.
var keys = func() (keys [65]*key) {
	for i := range keys {
		keys[i] = &key{i}
	}
	return
}()

var found any

func value() []workload {
	var all []workload
	for _, n := range []int{1, 8, 64} {
		values := "values"
		if n == 1 {
			values = "value"
		}
		for _, c := range []struct {
			name string
			key  int
		}{{"hit at the root", 0}, {"hit at the leaf", n - 1}, {"miss", 64}} {
			all = append(all, workload{
				row: "P5", name: fmt.Sprintf("%d %s, %s", n, values, c.name), threads: 1,
				loop: onValues(n, func(ctx context.Context, _ *sink) { found = ctx.Value(keys[c.key]) }),
			})
		}
	}
	for _, n := range []int{1, 64} {
		all = append(all, workload{
			row: "P5", name: fmt.Sprintf("one more value at depth %d", n), threads: 1,
			loop: onValues(n, func(ctx context.Context, out *sink) { out.ctx = context.WithValue(ctx, keys[64], 1) }),
		})
	}
	return all
}

func onValues(n int, operation func(context.Context, *sink)) func() func() batch {
	return func() func() batch {
		ctx := context.Background()
		for i := range n {
			ctx = context.WithValue(ctx, keys[i], i)
		}
		return func() batch {
			out := new(sink)
			return func(times int) {
				for range times {
					operation(ctx, out)
				}
			}
		}
	}
}
