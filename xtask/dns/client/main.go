// Looks names up as Go does and connects to what it gets, or connects without asking.
//
//	client FAMILY FIRST COUNT PARALLEL AGAIN [blind]
//
// Name number N of family 4 leads to address N of 198.18.0.0/15, that of family 6 to address N of
// fd00:198::/96. AGAIN: seconds after which it connects once more to what it has got, as a cache does that
// keeps answers for longer than they count. It prints how many connected with their first packet, how many
// later, and how many not at all.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	port     = "80"
	patience = 2500 * time.Millisecond
	// The kernel sends a second packet after one second.
	atOnce = 900 * time.Millisecond
)

var onTime, late, failed atomic.Int64

func main() {
	family, first, count, parallel, again := number(1), number(2), number(3), number(4), number(5)
	blind := len(os.Args) > 6
	addresses := make([]string, count)
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for at := range numbers {
				if blind {
					addresses[at] = address(family, first+at)
				} else {
					addresses[at] = lookUp(family, first+at)
				}
				connect(addresses[at])
			}
		})
	}
	for at := range count {
		numbers <- at
	}
	close(numbers)
	workers.Wait()
	if again > 0 {
		time.Sleep(time.Duration(again) * time.Second)
		for _, address := range addresses {
			connect(address)
		}
	}
	fmt.Println(onTime.Load(), late.Load(), failed.Load())
}

func number(at int) int {
	value, err := strconv.Atoi(os.Args[at])
	if err != nil {
		panic(err)
	}
	return value
}

func name(family, n int) string {
	if family == 4 {
		return fmt.Sprintf("v4-%d-%d-%d.example.com", 18+n>>16, n>>8&255, n&255)
	}
	return fmt.Sprintf("v6-%x-%x.example.com", n>>16, n&0xffff)
}

func address(family, n int) string {
	if family == 4 {
		return fmt.Sprintf("198.%d.%d.%d", 18+n>>16, n>>8&255, n&255)
	}
	return fmt.Sprintf("fd00:198::%x:%x", n>>16, n&0xffff)
}

// lookUp gives no address when there is no answer.
func lookUp(family, n int) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupIP(ctx, "ip"+strconv.Itoa(family), name(family, n))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ""
	}
	return found[0].String()
}

func connect(address string) {
	started := time.Now()
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(address, port), patience)
	switch {
	case address == "" || err != nil:
		failed.Add(1)
		return
	case time.Since(started) < atOnce:
		onTime.Add(1)
	default:
		late.Add(1)
	}
	// A reset: no port is kept for a minute.
	connection.(*net.TCPConn).SetLinger(0)
	connection.Close()
}
