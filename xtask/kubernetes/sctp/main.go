// A stand-in for `agnhost connect --protocol=sctp` and for its servers, where the kernel has no SCTP.
//
// In: the arguments of `agnhost connect`, with TIMEOUT or another word on standard error when the server does not
// answer; or `serve`, for the ports of variables SERVE_SCTP_PORT_n. A connection here is the first half of the
// handshake, INIT and INIT ACK (RFC 9260, 5.1), by a raw socket. Left out: the rest of the association.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

const (
	chunkInit    = 1
	chunkInitAck = 2
	headerLength = 12
	initLength   = 20
	// A client sends its INIT again until it is answered.
	interval = 500 * time.Millisecond
)

func main() {
	err := errors.New("connect or serve")
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		err = serve()
	} else if len(os.Args) > 1 && os.Args[1] == "connect" {
		flags := flag.NewFlagSet("connect", flag.ExitOnError)
		timeout := flags.Duration("timeout", 3*time.Second, "until TIMEOUT")
		flags.String("protocol", "sctp", "sctp")
		// Its option may stand behind the address.
		var address []string
		var options []string
		for _, argument := range os.Args[2:] {
			if strings.HasPrefix(argument, "-") {
				options = append(options, argument)
			} else {
				address = append(address, argument)
			}
		}
		flags.Parse(options)
		if len(address) != 1 {
			err = errors.New("one address")
		} else {
			err = connect(address[0], *timeout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func connect(address string, timeout time.Duration) error {
	server, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	connection, err := net.DialIP("ip:132", nil, &net.IPAddr{IP: server.IP, Zone: server.Zone})
	if err != nil {
		return fmt.Errorf("OTHER: %w", err)
	}
	defer connection.Close()
	port := uint16(32768 + rand.IntN(28000))
	tag := rand.Uint32() | 1
	request := packet(port, uint16(server.Port), 0, chunkInit, tag)
	end := time.Now().Add(timeout)
	buffer := make([]byte, 2048)
	for time.Now().Before(end) {
		if _, err := connection.Write(request); err != nil {
			// The kernel may have learnt that there is no route.
			time.Sleep(interval)
			continue
		}
		connection.SetReadDeadline(time.Now().Add(interval))
		for {
			length, err := connection.Read(buffer)
			if err != nil {
				break
			}
			from, to, verification, chunk, _, ok := parse(buffer[:length])
			if ok && from == uint16(server.Port) && to == port && verification == tag && chunk == chunkInitAck {
				return nil
			}
		}
	}
	return errors.New("TIMEOUT")
}

func serve() error {
	ports := map[uint16]bool{}
	for _, variable := range os.Environ() {
		var port uint16
		if _, err := fmt.Sscanf(variable, "SERVE_SCTP_PORT_%d=", &port); err == nil {
			ports[port] = true
		}
	}
	failure := make(chan error)
	for _, network := range []string{"ip4:132", "ip6:132"} {
		socket, err := net.ListenIP(network, nil)
		if err != nil {
			// A pod without IPv6, for instance.
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		go func() { failure <- answer(socket, ports) }()
	}
	return <-failure
}

func answer(socket *net.IPConn, ports map[uint16]bool) error {
	buffer := make([]byte, 2048)
	for {
		length, client, err := socket.ReadFromIP(buffer)
		if err != nil {
			return err
		}
		from, to, _, chunk, tag, ok := parse(buffer[:length])
		if !ok || chunk != chunkInit || !ports[to] {
			continue
		}
		socket.WriteToIP(packet(to, from, tag, chunkInitAck, rand.Uint32()|1), client)
	}
}

// A packet with one chunk, INIT or INIT ACK. The state cookie of the latter is four bytes of zero.
func packet(from, to uint16, verification uint32, chunk byte, tag uint32) []byte {
	length := initLength
	if chunk == chunkInitAck {
		length += 8
	}
	bytes := make([]byte, headerLength+length)
	big := binary.BigEndian
	big.PutUint16(bytes[0:], from)
	big.PutUint16(bytes[2:], to)
	big.PutUint32(bytes[4:], verification)
	bytes[12] = chunk
	big.PutUint16(bytes[14:], uint16(length))
	big.PutUint32(bytes[16:], tag)
	big.PutUint32(bytes[20:], 65536) // window
	big.PutUint16(bytes[24:], 1)     // streams out
	big.PutUint16(bytes[26:], 1)     // streams in
	big.PutUint32(bytes[28:], tag)   // first sequence number
	if chunk == chunkInitAck {
		big.PutUint16(bytes[32:], 7) // state cookie
		big.PutUint16(bytes[34:], 8)
	}
	checksum := crc32.Checksum(bytes, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(bytes[8:], checksum)
	return bytes
}

func parse(bytes []byte) (from, to uint16, verification uint32, chunk byte, tag uint32, ok bool) {
	// Of IPv4 a raw socket may see the header.
	if len(bytes) > 20 && bytes[0]>>4 == 4 && bytes[9] == 132 && int(bytes[0]&15)*4 < len(bytes) {
		if length := int(binary.BigEndian.Uint16(bytes[2:])); length == len(bytes) {
			bytes = bytes[int(bytes[0]&15)*4:]
		}
	}
	if len(bytes) < headerLength+8 {
		return
	}
	big := binary.BigEndian
	return big.Uint16(bytes), big.Uint16(bytes[2:]), big.Uint32(bytes[4:]), bytes[12], big.Uint32(bytes[16:]), true
}
