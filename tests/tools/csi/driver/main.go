// Csi-driver is a storage driver for tests: its volumes are folders of one machine, and its snapshots are copies of them.
//
// All it knows is in files below its state's folder (see state.go), so that it goes on where it was killed, and whoever tests with it can
// look. How it is to fail is in files too: see knobs.go.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"
	"path"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver answers every service of the interface, one change of its state at a time.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	name, node string
	volumes    shelf[volume]
	snapshots  shelf[snapshot]
	knobs      knobs
	changing   sync.Mutex
}

func main() {
	name := flag.String("name", "", "the driver's name")
	node := flag.String("node", "", "the name of the node it runs on")
	state := flag.String("state", "", "the folder of all it keeps")
	socket := flag.String("socket", "", "where it serves the interface")
	register := flag.String("registration", "", "where it serves the kubelet's registration of plugins; nowhere, when not given")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)

	driver := &driver{
		name: *name, node: *node,
		volumes:   shelf[volume]{path.Join(*state, "volumes")},
		snapshots: shelf[snapshot]{path.Join(*state, "snapshots")},
		knobs:     knobs(path.Join(*state, "knobs")),
	}
	if err := errors.Join(driver.volumes.open(), driver.snapshots.open(), os.MkdirAll(string(driver.knobs), 0o755)); err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	csi.RegisterIdentityServer(server, driver)
	csi.RegisterControllerServer(server, driver)
	csi.RegisterNodeServer(server, driver)
	listener := listen(*socket)
	if *register != "" {
		plugins := grpc.NewServer()
		registration.RegisterRegistrationServer(plugins, &plugin{name: *name, socket: *socket})
		go serve(plugins, listen(*register))
	}
	serve(server, listener)
}

// listen takes a socket's place over from a process before it.
func listen(socket string) net.Listener {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	if err := os.MkdirAll(path.Dir(socket), 0o755); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func serve(server *grpc.Server, listener net.Listener) {
	log.Fatal(server.Serve(listener))
}

// logged writes a line for each call: what was asked, what came of it, and how long it took.
func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	start := time.Now()
	response, err := handle(ctx, request)
	log.Printf("%s %v: %s %v", path.Base(info.FullMethod), time.Since(start), status.Code(err), err)
	return response, err
}
