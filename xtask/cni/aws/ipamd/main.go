// A stand-in for ipamd, the daemon of the AWS VPC CNI, where there is no EC2 to ask for interfaces and addresses.
//
// In: the node's address, its pods' network and all pods' network. Out: the answers that the CNI plugin waits for, on
// ipamd's socket, and the node's rules as ipamd's own package makes them (SNAT for what leaves the VPC, marks for
// node ports, the rule of the main interface). Every second address belongs to a second interface: the plugin routes
// these pods by the table of that interface. Left out: everything that needs a cloud.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/aws/amazon-vpc-cni-k8s/pkg/ipamd/datastore"
	"github.com/aws/amazon-vpc-cni-k8s/pkg/networkutils"
	"github.com/aws/amazon-vpc-cni-k8s/rpc"
	"google.golang.org/grpc"
)

const (
	socket = "/var/run/aws-node/ipamd.sock"
	uplink = "eth0"
	// The numbers that ipamd gives the tables of the first and the second interface.
	mainTable, secondTable = 1, 2
)

// pool hands out the addresses of a node.
type pool struct {
	rpc.UnimplementedCNIBackendServer
	cidrs []string

	lock  sync.Mutex
	free  []netip.Addr
	given map[string]netip.Addr
}

func main() {
	node := flag.String("node", "", "the node's address")
	pods := flag.String("pods", "", "the network of the node's pods")
	vpc := flag.String("vpc", "", "the network of all pods")
	flag.Parse()
	if err := run(*node, *pods, *vpc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(node, pods, vpc string) error {
	network, err := netip.ParsePrefix(pods)
	if err != nil {
		return err
	}
	own := net.ParseIP(node)
	cidrs := []string{vpc, (&net.IPNet{IP: own.Mask(net.CIDRMask(24, 32)), Mask: net.CIDRMask(24, 32)}).String()}
	if err := prepare(own, cidrs); err != nil {
		return fmt.Errorf("the node's rules: %w", err)
	}
	addresses := &pool{cidrs: cidrs, given: map[string]netip.Addr{}}
	// The first two are the network's own and the gateway's, the last one is broadcast.
	for address := network.Addr().Next().Next(); network.Contains(address.Next()); address = address.Next() {
		addresses.free = append(addresses.free, address)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	rpc.RegisterCNIBackendServer(server, addresses)
	return server.Serve(listener)
}

func prepare(own net.IP, cidrs []string) error {
	link, err := net.InterfaceByName(uplink)
	if err != nil {
		return err
	}
	host, err := networkutils.New()
	if err != nil {
		return err
	}
	return host.SetupHostNetwork(cidrs, link.HardwareAddr.String(), &own, false, false)
}

func (pool *pool) AddNetwork(_ context.Context, request *rpc.AddNetworkRequest) (*rpc.AddNetworkReply, error) {
	pool.lock.Lock()
	defer pool.lock.Unlock()
	address, known := pool.given[request.ContainerID]
	if !known {
		if len(pool.free) == 0 {
			return &rpc.AddNetworkReply{}, nil
		}
		address, pool.free = pool.free[0], pool.free[1:]
		pool.given[request.ContainerID] = address
	}
	return &rpc.AddNetworkReply{
		Success:              true,
		IPAllocationMetadata: allocation(address),
		VPCv4CIDRs:           pool.cidrs,
	}, nil
}

func (pool *pool) DelNetwork(_ context.Context, request *rpc.DelNetworkRequest) (*rpc.DelNetworkReply, error) {
	pool.lock.Lock()
	defer pool.lock.Unlock()
	address, known := pool.given[request.ContainerID]
	if !known {
		return nil, datastore.ErrUnknownPod
	}
	delete(pool.given, request.ContainerID)
	// As in a VPC, an address rests before another pod gets it.
	pool.free = append(pool.free, address)
	return &rpc.DelNetworkReply{Success: true, IPAllocationMetadata: allocation(address)}, nil
}

func allocation(address netip.Addr) []*rpc.IPAllocationMetadata {
	allocation := &rpc.IPAllocationMetadata{IPv4Addr: address.String(), RouteTableId: mainTable}
	if address.As4()[3]%2 == 1 {
		allocation.DeviceNumber, allocation.RouteTableId = 1, secondTable
	}
	return []*rpc.IPAllocationMetadata{allocation}
}
