// Runs programs, which come on standard input, in Go's context, and writes what is to be seen to standard output. An operation a line,
// an empty line behind each program; behind what it shows, a dot. Time is that of testing/synctest: it passes when the program says so.
package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const keys = 3

type key int

// A cause that is a number.
type number int

func (n number) Error() string { return strconv.Itoa(int(n)) }

type node struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	live   bool
	// Nothing can be done with it any more.
	released bool
}

type world struct {
	begin time.Time
	nodes []node
	stops []func() bool
	mu    sync.Mutex
	ran   []int
}

func cause(n int) error {
	if n == 0 {
		return nil
	}
	return number(n)
}

func (w *world) look(i int) string {
	ctx := w.nodes[i].ctx
	var text strings.Builder
	switch err := ctx.Err(); {
	case err == nil:
		text.WriteString("live")
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(&text, "exceeded %d", reason(ctx))
	default:
		fmt.Fprintf(&text, "canceled %d", reason(ctx))
	}
	if at, ok := ctx.Deadline(); ok {
		fmt.Fprintf(&text, " %d", at.Sub(w.begin).Microseconds())
	} else {
		text.WriteString(" -")
	}
	for k := range keys {
		if v, ok := ctx.Value(key(k)).(int); ok {
			fmt.Fprintf(&text, " %d", v)
		} else {
			text.WriteString(" -")
		}
	}
	return text.String()
}

// 0 where there is none of our own: Go then gives the error itself (D1).
func reason(ctx context.Context) int {
	if n, ok := context.Cause(ctx).(number); ok {
		return int(n)
	}
	return 0
}

func (w *world) add(ctx context.Context, cancel context.CancelCauseFunc) {
	w.nodes = append(w.nodes, node{ctx: ctx, cancel: cancel, live: true})
}

func (w *world) do(op string) string {
	words := strings.Fields(op)
	at := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	pick := func(i int) *node { return &w.nodes[at(i)%len(w.nodes)] }
	made := len(w.nodes)
	line := ""
	what := words[0]
	switch what {
	case "look", "advance", "stop":
	default:
		if pick(1).released {
			what = "nothing"
		}
	}
	switch what {
	case "cancel":
		w.add(context.WithCancelCause(pick(1).ctx))
	case "deadline":
		when := time.Now().Add(time.Duration(at(2)) * time.Microsecond)
		timed, _ := context.WithDeadlineCause(pick(1).ctx, when, cause(at(3))) // its own cancel has no cause (D2)
		w.add(context.WithCancelCause(timed))
	case "value":
		w.add(context.WithValue(pick(1).ctx, key(at(2)%keys), at(3)), nil)
	case "detach":
		w.add(context.WithoutCancel(pick(1).ctx), nil)
	case "end", "drop":
		why := 0
		if what == "end" {
			why = at(2)
		}
		if cancel := pick(1).cancel; cancel != nil {
			cancel(cause(why))
		}
	case "look":
		for i := range w.nodes {
			if w.nodes[i].live && w.nodes[i].ctx.Err() != nil {
				w.nodes[i].live = false
				line += " !" + strconv.Itoa(i)
			}
		}
	case "nothing":
	case "release":
		if at(1)%len(w.nodes) != 0 {
			pick(1).released, pick(1).live = true, false // its memory is the collector's (D6)
		}
	case "advance":
		time.Sleep(time.Duration(at(1)) * time.Microsecond)
	case "watch":
		number := len(w.stops)
		w.stops = append(w.stops, context.AfterFunc(pick(1).ctx, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ran = append(w.ran, number)
		}))
	case "stop":
		if len(w.stops) > 0 {
			line = strconv.FormatBool(w.stops[at(1)%len(w.stops)]())
		}
	default:
		panic("what is " + op + "?")
	}
	synctest.Wait() // for callbacks, which are goroutines (D3)
	if len(w.nodes) > made {
		line = w.look(made)
		w.nodes[made].live = w.nodes[made].ctx.Err() == nil
	}
	slices.Sort(w.ran)
	for _, number := range w.ran {
		line += " *" + strconv.Itoa(number)
	}
	w.ran = w.ran[:0]
	return line
}

func TestRun(t *testing.T) {
	input := bufio.NewReaderSize(os.Stdin, 1<<16)
	output := bufio.NewWriterSize(os.Stdout, 1<<16)
	defer output.Flush()
	var program []string
	for {
		line, err := input.ReadString('\n')
		if err != nil {
			return
		}
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			program = append(program, line)
			continue
		}
		synctest.Test(t, func(*testing.T) {
			root, end := context.WithCancel(context.Background())
			defer end()
			w := &world{begin: time.Now()}
			w.add(context.WithoutCancel(root), nil)
			for _, op := range program {
				fmt.Fprintln(output, w.do(op))
			}
			for i := range w.nodes {
				if !w.nodes[i].released {
					fmt.Fprintln(output, w.look(i))
				}
			}
			for _, node := range w.nodes {
				if node.cancel != nil {
					node.cancel(nil)
				}
			}
		})
		fmt.Fprintln(output, ".")
		program = program[:0]
		if input.Buffered() == 0 {
			output.Flush()
		}
	}
}
