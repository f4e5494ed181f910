// A peer that is not ours: Go's own server and client, told on standard input what to do, and saying on standard output what they
// see. They end when the input does.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var output sync.Mutex

func say(format string, words ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Printf(format+"\n", words...)
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	case len(os.Args) == 3 && os.Args[1] == "ask":
		ask(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "serve, or ask h1|h2")
		os.Exit(2)
	}
}

func protocols(which string) *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(which != "h2")
	protocols.SetUnencryptedHTTP2(which != "h1")
	return protocols
}

// A server that says how its requests begin and end.
func serve() {
	handler := http.NewServeMux()
	begin := func(r *http.Request) {
		say("begun %s %s", r.URL.Path, r.Header.Get("x-request-timeout"))
	}
	end := func(ctx context.Context) {
		<-ctx.Done()
		say("ended %v, because: %v", ctx.Err(), context.Cause(ctx))
	}
	handler.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		begin(r)
		fmt.Fprint(w, "hello")
	})
	handler.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		begin(r)
		end(r.Context())
	})
	handler.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		begin(r)
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		end(r.Context())
	})
	// As a service in Go would keep to what it is told.
	handler.HandleFunc("/obey", func(w http.ResponseWriter, r *http.Request) {
		begin(r)
		left, err := time.ParseDuration(r.Header.Get("x-request-timeout") + "s")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), left)
		defer cancel()
		end(ctx)
		http.Error(w, "too late", http.StatusGatewayTimeout)
	})
	handler.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		begin(r)
		piece := make([]byte, 1024)
		_, err := r.Body.Read(piece)
		say("a part")
		for err == nil {
			_, err = r.Body.Read(piece)
		}
		if err != io.EOF {
			say("broken %s", kind(err))
			return
		}
		say("whole")
		fmt.Fprint(w, "done")
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	say("%s", listener.Addr())
	server := &http.Server{Handler: handler, Protocols: protocols("both")}
	go func() { panic(server.Serve(listener)) }()
	io.Copy(io.Discard, os.Stdin)
}

// A client: each line is `get ID URL TIMEOUT [HEADER VALUE]`, with 0s for no timeout, `post ID URL TIMEOUT` for one that sends half of
// a body, `finish ID` for the end of that body, or `cancel ID`.
func ask(which string) {
	client := &http.Client{Transport: &http.Transport{Protocols: protocols(which), DisableCompression: true}}
	cancels := map[string]context.CancelFunc{}
	uploads := map[string]*io.PipeWriter{}
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		words := strings.Fields(input.Text())
		if words[0] == "cancel" {
			cancels[words[1]]()
			continue
		}
		if words[0] == "finish" {
			uploads[words[1]].Close()
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		if timeout, _ := time.ParseDuration(words[3]); timeout != 0 {
			ctx, cancel = context.WithTimeout(context.Background(), timeout)
		}
		cancels[words[1]] = cancel
		method, body := "GET", io.Reader(nil)
		if words[0] == "post" {
			reader, writer := io.Pipe()
			uploads[words[1]] = writer
			method, body = "POST", reader
			go fmt.Fprint(writer, "half")
		}
		request, err := http.NewRequestWithContext(ctx, method, words[2], body)
		if err != nil {
			panic(err)
		}
		if len(words) > 5 {
			request.Header.Set(words[4], words[5])
		}
		go get(client, words[1], request)
	}
}

func get(client *http.Client, id string, request *http.Request) {
	response, err := client.Do(request)
	if err != nil {
		say("%s error %s", id, kind(err))
		return
	}
	defer response.Body.Close()
	say("%s status %d HTTP/%d", id, response.StatusCode, response.ProtoMajor)
	piece := make([]byte, 1024)
	for {
		n, err := response.Body.Read(piece)
		if n > 0 {
			say("%s body %s", id, strings.TrimSpace(string(piece[:n])))
		}
		if err == io.EOF {
			say("%s whole", id)
			return
		}
		if err != nil {
			say("%s broken %s", id, kind(err))
			return
		}
	}
}

func kind(err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline exceeded"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected EOF"
	}
	return err.Error()
}
